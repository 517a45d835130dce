"""Flax modules over the sparse kernels."""

from sparsejax.kernels import avg_pool as avg_pool
from sparsejax.kernels import max_pool as max_pool
from sparsejax.nn._batch_norm import BatchNorm as BatchNorm
