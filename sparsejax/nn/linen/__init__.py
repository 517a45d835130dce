"""Sparse models for Flax Linen: whole modules with ``sparsify``, and the layers ``SparseDense`` and ``SparseConv``."""

from typing import TYPE_CHECKING

from sparsejax._surface import attributes
from sparsejax.nn.linen._convert import densify, pattern_masks, sparsify
from sparsejax.nn.linen._layers import SparseConv, SparseDense
from sparsejax.nn.linen._train_state import densify_train_state, sparsify_train_state

__all__ = [
    "SparseConv",
    "SparseDense",
    "densify",
    "densify_train_state",
    "pattern_masks",
    "sparsify",
    "sparsify_train_state",
]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name
    __getattr__, __dir__ = attributes(__name__)
