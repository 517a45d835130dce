"""Sparse products and batch-minor reductions as JAX primitives; knows nothing of Flax."""

from sparsejax.kernels import _targets
from sparsejax.kernels._channel import add_bias as add_bias
from sparsejax.kernels._channel import channel_dot as channel_dot
from sparsejax.kernels._channel import channel_scale as channel_scale
from sparsejax.kernels._channel import channel_shift as channel_shift
from sparsejax.kernels._channel import channel_sum as channel_sum
from sparsejax.kernels._conv import conv as conv
from sparsejax.kernels._matmul import sddmm as sddmm
from sparsejax.kernels._matmul import spmm as spmm
from sparsejax.kernels._matmul import spmm_t as spmm_t
from sparsejax.kernels._norm import batch_norm as batch_norm
from sparsejax.kernels._operands import is_supported as is_supported
from sparsejax.kernels._pool import avg_pool as avg_pool
from sparsejax.kernels._pool import max_pool as max_pool
from sparsejax.kernels._targets import export_checks as export_checks

_targets.register()
