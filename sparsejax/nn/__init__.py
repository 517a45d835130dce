"""Flax modules over the sparse kernels."""

from sparsejax.kernels import avg_pool as avg_pool
from sparsejax.kernels import max_pool as max_pool
from sparsejax.nn._batch_norm import BatchNorm as BatchNorm
from sparsejax.nn._batch_norm import norm_act as norm_act
from sparsejax.nn._conv import SparseConv as SparseConv
from sparsejax.nn._convert import densify as densify
from sparsejax.nn._convert import pattern_masks as pattern_masks
from sparsejax.nn._convert import sparsify as sparsify
from sparsejax.nn._linear import SparseLinear as SparseLinear
from sparsejax.nn._optimizer import carry_optimizer as carry_optimizer
from sparsejax.nn._variables import Pattern as Pattern
