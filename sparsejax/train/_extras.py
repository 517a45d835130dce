"""Packages that training needs beyond those of the library."""

from __future__ import annotations

from sparsejax._extras import require


def require_extras() -> None:
    """Refuse before the first step what would otherwise fail after the last.

    Raises:
      ImportError: a package is missing; the message says how to install it.
    """
    for module in ("orbax.checkpoint", "matplotlib"):
        require(module, "train", "all")
