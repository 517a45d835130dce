"""Sparse convolution: forward, input gradient and weight gradient, bilinear and closed under transposition."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax._compat import out_aval
from sparsejax._typing import ArrayLike
from sparsejax.kernels import _reference
from sparsejax.kernels._batching import fold_batch
from sparsejax.kernels._geometry import ConvGeometry, PaddingLike, PerAxis, per_axis, resolve_padding
from sparsejax.kernels._layout import BATCH_MINOR, Layouts
from sparsejax.kernels._operands import check_activations, check_data, pattern_operands
from sparsejax.kernels._primitive import define_bilinear, define_gradients, on_both_orientations
from sparsejax.kernels._targets import cpu_lowering
from sparsejax.pattern import SparsityPattern


def _attributes(ctx: Any, geometry: ConvGeometry) -> dict[str, Any]:
    return {"geometry": geometry.attribute()}


def _conv_aval(data: Any, x: Any, *_: Any, geometry: ConvGeometry, layouts: Layouts) -> Any:
    return out_aval(x, (x.shape[0], *geometry.out_spatial, geometry.out_features), x.dtype)


_CONV_TRANSPOSE = (
    lambda ct, x, aval, *p, **params: _conv_weight_grad(x, ct, *p, **params),
    lambda ct, data, aval, *p, **params: _conv_input_grad(data, ct, *p, **params),
)

_conv = define_bilinear(
    "sparsejax_conv",
    abstract=_conv_aval,
    reference=_reference.conv,
    cpu_lowering=cpu_lowering("sparsejax_conv_v2", (0, 1, 2, 3), _attributes, activations="xy"),
    transpose=_CONV_TRANSPOSE,
    tangent=lambda *args, **params: _conv_tangent(*args, **params),
    batch=fold_batch(1),
)

_conv_tangent, _conv_backward = define_gradients(
    "sparsejax_conv",
    product=_conv,
    abstract=_conv_aval,
    transpose=_CONV_TRANSPOSE,
    cpu_lowering=cpu_lowering("sparsejax_conv_backward_v2", attributes=_attributes, activations="yxx"),
)

_conv_input_grad = on_both_orientations(
    define_bilinear(
        "sparsejax_conv_input_grad",
        abstract=lambda data, y, *_, geometry, layouts: out_aval(
            y, (y.shape[0], *geometry.in_spatial, geometry.in_features), y.dtype
        ),
        reference=_reference.conv_input_grad,
        cpu_lowering=cpu_lowering("sparsejax_conv_input_grad_v2", (0, 1, 4, 5, 6), _attributes, activations="yx"),
        transpose=(
            lambda ct, y, aval, *p, **params: _conv_weight_grad(ct, y, *p, **params),
            lambda ct, data, aval, *p, **params: _conv(data, ct, *p, **params),
        ),
        batch=fold_batch(1),
    )
)

_conv_weight_grad = define_bilinear(
    "sparsejax_conv_weight_grad",
    abstract=lambda x, y, indptr, indices, *_, geometry, layouts: out_aval(x, indices.shape, x.dtype),
    reference=_reference.conv_weight_grad,
    cpu_lowering=cpu_lowering("sparsejax_conv_weight_grad_v2", (0, 1, 2, 3), _attributes, activations="xy"),
    transpose=(
        lambda ct, y, aval, *p, **params: _conv_input_grad(ct, y, *p, **params),
        lambda ct, x, aval, *p, **params: _conv(ct, x, *p, **params),
    ),
)


def conv(
    data: ArrayLike,
    pattern: SparsityPattern,
    x: ArrayLike,
    *,
    strides: PerAxis = 1,
    padding: PaddingLike = "SAME",
    input_dilation: PerAxis = 1,
    kernel_dilation: PerAxis = 1,
    feature_group_count: int = 1,
    layouts: Layouts = BATCH_MINOR,
) -> jax.Array:
    """Convolve activations with a sparse kernel (cross-correlation, as everywhere in deep learning).

    y[b, o, f] = sum over the entries (i, c) of row f of data[e] * x[b, (o * stride - low + i * dilation), c]

    per spatial axis, with zeros outside ``x``; ``c`` runs over the input features of the group of ``f``.

    Args:
      data: stored entries, float[nse]; float32, float64 or bfloat16.
      pattern: SparsityPattern of kernel shape ``(*window, in // groups, out)`` with one or two window axes.
      x: float[..., *spatial, in], same dtype as ``data``. Leading axes are batch; none is a batch of one.
      strides, input_dilation, kernel_dilation: positive integers, one or one per axis. Static.
      padding: "SAME", "VALID", "CIRCULAR", "CAUSAL" (one axis), an integer, or per axis an integer or a
        (low, high) pair; as in ``flax.nnx.Conv``. Static.
      feature_group_count: groups; must divide ``in`` and ``out``. Static.
      layouts: how ``x`` and ``y`` lie in memory. Static. Results do not depend on it.

    Returns:
      float[..., *out_spatial, out]; bfloat16 products are accumulated in float32. The order of summation is fixed.

    Raises:
      ValueError: shapes, dtypes, padding or groups disagree or are not supported, the window does not fit, or an axis
        other than the batch has size 0 (features of the output aside).
      JaxRuntimeError, ValueError: an index is out of range; raised when the kernel runs.

    Cost: 2 * nse * batch * prod(out_spatial) flops. Differentiable in ``data`` and ``x``, any order, both modes.
    Source: Nikdan et al. 2023 (SparseProp), section 3; padding as in Flax.

    >>> kernel = jnp.zeros((3, 1, 1)).at[1, 0, 0].set(2.0)
    >>> p = SparsityPattern.from_dense(kernel)
    >>> conv(p.gather(kernel), p, jnp.ones((1, 4, 1))).ravel().tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    data, x = check_data("conv", data, pattern), jnp.asarray(x)
    rank = len(pattern.shape) - 2
    if rank not in (1, 2):
        fail("conv", "pattern", f"shape {pattern.shape}", "one or two window axes, then (in // groups, out)")
    if 0 in pattern.shape[:-1]:
        fail("conv", "pattern", f"shape {pattern.shape}", "a window and input features of size 1 or more")
    in_features = _check_groups(pattern, feature_group_count)
    if x.ndim < rank + 1:
        fail("conv", "x", f"shape {x.shape}", f"at least {rank + 1} axes: {rank} spatial and the features")
    check_activations("conv", "x", x, data.dtype, in_features, "input features (in // groups * groups)")
    lead, spatial = x.shape[: x.ndim - rank - 1], x.shape[-rank - 1 : -1]
    if 0 in spatial:
        fail("conv", "x", f"spatial shape {spatial}", "spatial axes of size 1 or more")
    flat = x.reshape(math.prod(lead), *spatial, in_features)

    window = pattern.shape[:rank]
    strides = per_axis("conv", "strides", strides, rank)
    dilations = (
        per_axis("conv", "input_dilation", input_dilation, rank),
        per_axis("conv", "kernel_dilation", kernel_dilation, rank),
    )
    pairs = resolve_padding("conv", padding, spatial, window, strides, *dilations)
    if isinstance(padding, str) and padding == "CIRCULAR":
        flat = jnp.pad(flat, [(0, 0), *pairs, (0, 0)], mode="wrap")
        spatial, pairs = flat.shape[1:-1], ((0, 0),) * rank
    geometry = ConvGeometry(spatial, in_features, pattern.rows, window, strides, pairs, *dilations, feature_group_count)
    if 0 in geometry.out_spatial:
        fail("conv", "x", f"spatial shape {spatial}", f"room for the dilated window {window} with padding {pairs}")
    out = _conv(data, flat, *pattern_operands(pattern), geometry=geometry, layouts=layouts)
    return out.reshape(*lead, *out.shape[1:])


def _check_groups(pattern: SparsityPattern, groups: int) -> int:
    """Number of input features."""
    if groups < 1 or pattern.rows % groups:
        fail("conv", "feature_group_count", f"value {groups}", f"a positive divisor of the {pattern.rows} outputs")
    return pattern.shape[-2] * groups
