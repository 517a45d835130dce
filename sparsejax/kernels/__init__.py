"""Sparse products and reductions over channels as JAX primitives; knows nothing of Flax."""

from typing import TYPE_CHECKING

from sparsejax._surface import attributes
from sparsejax.kernels import _targets
from sparsejax.kernels._attention import attention
from sparsejax.kernels._channel import add_bias, channel_dot, channel_scale, channel_shift, channel_sum
from sparsejax.kernels._conv import conv
from sparsejax.kernels._geometry import ConvGeometry, PaddingLike, PerAxis, PoolGeometry, per_axis, resolve_padding
from sparsejax.kernels._layout import BATCH_MINOR, ROW_MAJOR, Layout, Layouts
from sparsejax.kernels._matmul import sddmm, spmm, spmm_t
from sparsejax.kernels._norm import batch_norm
from sparsejax.kernels._operands import is_supported
from sparsejax.kernels._pool import avg_pool, max_pool
from sparsejax.kernels._targets import export_checks

__all__ = [
    "BATCH_MINOR",
    "ROW_MAJOR",
    "ConvGeometry",
    "Layout",
    "Layouts",
    "PaddingLike",
    "PerAxis",
    "PoolGeometry",
    "add_bias",
    "attention",
    "avg_pool",
    "batch_norm",
    "channel_dot",
    "channel_scale",
    "channel_shift",
    "channel_sum",
    "conv",
    "export_checks",
    "is_supported",
    "max_pool",
    "per_axis",
    "resolve_padding",
    "sddmm",
    "spmm",
    "spmm_t",
]

_targets.register()

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name
    __getattr__, __dir__ = attributes(__name__)
