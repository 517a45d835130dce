"""Packages of the extras, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from sparsejax._checks import message

# Names in the package index, where they are not those of the import.
_PACKAGES = {"sklearn": "scikit-learn", "PIL": "Pillow", "orbax": "orbax-checkpoint"}


def require(module: str, function: str, extra: str = "all") -> Any:
    """Import a module of an optional package, or say how to install it.

    Args:
      module: to import.
      function: that needs it, for the message.
      extra: the extra of sparsejax that installs it.

    Raises:
      ImportError: the package is missing.

    >>> require("json", "report").dumps({})
    '{}'
    """
    top = module.partition(".")[0]
    try:
        importlib.import_module(top)  # a module that is loaded already would not ask for its package
        return importlib.import_module(module)
    except ImportError as error:
        package = _PACKAGES.get(top, top)
        hint = f"Install it: pip install 'sparsejax[{extra}]'."
        raise ImportError(message(function, "the environment", f"no {package}", package, hint)) from error
