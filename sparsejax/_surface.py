"""What a package shows: submodules that load at first use, and the old names that still work and warn."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_REMOVED_IN = "0.3"


def attributes(
    package: str, *, submodules: Sequence[str] = (), deprecated: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
      package: its ``__name__``; its ``__all__`` is what ``dir`` lists.
      submodules: names of submodules that are imported when they are first used.
      deprecated: old name -> full path of the object that replaces it, ``"sparsejax.pruning.is_kernel"``.

    Returns:
      The two functions (PEP 562). A deprecated name gives the new object and a DeprecationWarning.
    """
    renamed = dict(deprecated or {})

    def get(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name in renamed:
            warn_renamed(f"{package}.{name}", renamed[name], stacklevel=3)
            module, _, attribute = renamed[name].rpartition(".")
            return getattr(importlib.import_module(module), attribute)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return get, names


def warn_renamed(old: str, new: str, *, stacklevel: int = 2) -> None:
    """Warn that ``old`` is a name of the release before."""
    text = f"{old} is deprecated and will be removed in sparsejax {_REMOVED_IN}; use {new}."
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


def renamed_arguments(**renamed: str) -> Callable[[F], F]:
    """Let a function take keyword arguments by their names of the release before, with a DeprecationWarning.

    Args:
      renamed: old name = new name; the values mean the same.

    Returns:
      A decorator.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old, new in renamed.items():
                if old in kwargs:
                    name = function.__qualname__
                    if new in kwargs:
                        raise TypeError(f"{name}: got {new!r} and its old name {old!r}; expected one of them.")
                    warn_renamed(f"{name}({old}=...)", f"{new}=...")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate
