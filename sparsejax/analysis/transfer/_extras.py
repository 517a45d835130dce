"""Packages of the extra ``analysis``, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from sparsejax._checks import message

_PACKAGES = {"sklearn": "scikit-learn"}


def require(module: str, function: str) -> Any:
    """Import a package of the extra, or say how to install it.

    >>> require("json", "report").dumps({})
    '{}'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        package = _PACKAGES.get(top, top)
        hint = "Install it: pip install 'sparsejax[analysis]'."
        raise ImportError(message(function, "the environment", f"no {package}", package, hint)) from error
