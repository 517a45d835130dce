"""Where the nonzeros of a kernel are: one immutable object, in both orientations."""

from typing import TYPE_CHECKING

from sparsejax._surface import attributes
from sparsejax.pattern._pattern import SparsityPattern

__all__ = ["SparsityPattern"]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name
    __getattr__, __dir__ = attributes(__name__)
