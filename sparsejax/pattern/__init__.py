"""Where the nonzeros of a kernel are: one immutable object, in both orientations."""

from sparsejax.pattern._pattern import SparsityPattern as SparsityPattern
