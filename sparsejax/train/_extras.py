"""Packages that training needs beyond those of the library."""

from __future__ import annotations

import importlib

from sparsejax._checks import message

# Import name and name in the package index.
_EXTRAS = {"orbax.checkpoint": "orbax-checkpoint", "matplotlib": "matplotlib"}


def require_extras() -> None:
    """Refuse before the first step what would otherwise fail after the last.

    Raises:
      ImportError: a package is missing; the message says how to install it.
    """
    for module, package in _EXTRAS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            hint = "Install it: pip install 'sparsejax[all]'."
            raise ImportError(message("train", "the environment", f"no {package}", f"{package}", hint)) from error
