"""Errors of an inner optimizer say which of its transforms raised them."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Generator

import optax


@contextlib.contextmanager
def naming_inner(function: str, inner: optax.GradientTransformation) -> Generator[None]:
    """Add to an error the name of the Optax transform inside ``pruned`` that raised it."""
    try:
        yield
    except Exception as error:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        inside = [code.co_qualname for code in codes if "optax" in code.co_filename.split(os.sep)]
        name = [getattr(inner.init, "__qualname__", repr(inner)), *inside][-1].split(".<locals>")[0]
        error.add_note(f"{function}: raised by the inner optimizer, in {name}.")
        raise
