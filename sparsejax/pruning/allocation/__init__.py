"""Where the budget of kept weights goes: structures, scopes, distributions over layers, exact selection."""

from sparsejax.pruning.allocation._distributions import er, erk, global_count, uniform
from sparsejax.pruning.allocation._scopes import Capacity, Scope, across, per_layer
from sparsejax.pruning.allocation._selection import select
from sparsejax.pruning.allocation._structures import (
    Grid,
    Structure,
    block,
    channel,
    n_of_m,
    row_balanced,
    unstructured,
)

__all__ = [
    "Capacity",
    "Grid",
    "Scope",
    "Structure",
    "across",
    "block",
    "channel",
    "er",
    "erk",
    "global_count",
    "n_of_m",
    "per_layer",
    "row_balanced",
    "select",
    "uniform",
    "unstructured",
]
