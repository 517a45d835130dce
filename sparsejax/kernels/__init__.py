"""Sparse products and batch-minor reductions as JAX primitives; knows nothing of Flax."""

from sparsejax.kernels import _targets
from sparsejax.kernels._conv import conv as conv
from sparsejax.kernels._matmul import sddmm as sddmm
from sparsejax.kernels._matmul import spmm as spmm
from sparsejax.kernels._matmul import spmm_t as spmm_t
from sparsejax.kernels._targets import export_checks as export_checks

_targets.register()
