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
    package: str, *, submodules: Sequence[str] = (), deprecated: Mapping[str, str | tuple[str, str]] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
      package: its ``__name__``; its ``__all__`` is what ``dir`` lists.
      submodules: names of submodules that are imported when they are first used.
      deprecated: old name -> full path of the object that replaces it, ``"sparsejax.pruning.is_kernel"``; or a pair of
        the path of the old object and what to use instead, where no single object replaces it.

    Returns:
      The two functions (PEP 562). A deprecated name gives the new object and a DeprecationWarning.
    """
    renamed = dict(deprecated or {})

    def get(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name in renamed:
            new = renamed[name]
            path, advice = (new, new) if isinstance(new, str) else new
            warn_renamed(f"{package}.{name}", advice, stacklevel=3)
            module, _, attribute = path.rpartition(".")
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


def former_arguments(*old: str, use: str, former: str) -> Callable[[F], F]:
    """Let a function take its arguments of the release before where they do not map one to one, with a warning.

    Args:
      old: keyword arguments that exist no more.
      use: the arguments that replace them, for the warning.
      former: full path of a function with the former signature; it is imported and called if one of ``old`` is used.

    Returns:
      A decorator.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            used = [name for name in old if name in kwargs]
            if not used:
                return function(*args, **kwargs)
            warn_renamed(f"{function.__qualname__}({', '.join(f'{name}=...' for name in used)})", use)
            module, _, name = former.rpartition(".")
            return getattr(importlib.import_module(module), name)(*args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate
