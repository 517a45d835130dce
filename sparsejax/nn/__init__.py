"""Flax modules over the sparse kernels."""

from typing import TYPE_CHECKING

from sparsejax._surface import attributes
from sparsejax.kernels import avg_pool, max_pool
from sparsejax.nn._attention import dot_product_attention
from sparsejax.nn._batch_norm import BatchNorm, norm_act
from sparsejax.nn._conv import SparseConv
from sparsejax.nn._conv_transpose import SparseConvTranspose
from sparsejax.nn._convert import dense_kernels, densify, pattern_masks, sparsify
from sparsejax.nn._einsum import SparseEinsum
from sparsejax.nn._graph import modules_of
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._layout_plan import plan_layouts
from sparsejax.nn._linear import SparseLinear
from sparsejax.nn._linear_general import SparseLinearGeneral
from sparsejax.nn._lora import SparseLoRALinear
from sparsejax.nn._optimizer import carry_optimizer
from sparsejax.nn._optimizer_views import dense_view, kernel_mask
from sparsejax.nn._pattern import Pattern, forward_only
from sparsejax.nn._record import record_inputs
from sparsejax.nn._registry import register_sparse
from sparsejax.nn._report import LayerReport, SparsifyReport

if TYPE_CHECKING:
    from sparsejax.nn import cost_model, linen

__all__ = [
    "BatchNorm",
    "LayerReport",
    "Pattern",
    "SparseConv",
    "SparseConvTranspose",
    "SparseEinsum",
    "SparseLayer",
    "SparseLinear",
    "SparseLinearGeneral",
    "SparseLoRALinear",
    "SparsifyReport",
    "avg_pool",
    "carry_optimizer",
    "cost_model",
    "dense_kernels",
    "dense_view",
    "densify",
    "dot_product_attention",
    "forward_only",
    "kernel_mask",
    "linen",
    "max_pool",
    "modules_of",
    "norm_act",
    "pattern_masks",
    "plan_layouts",
    "record_inputs",
    "register_sparse",
    "sparsify",
]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name
    __getattr__, __dir__ = attributes(__name__, submodules=("cost_model", "linen"))
