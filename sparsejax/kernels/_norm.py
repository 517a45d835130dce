"""Batch norm in training, with the activation and the residual that follow it, as a primitive in either layout.

In the batch-minor layout a channel is one contiguous run that fits the second-level cache, so mean, variance and the
normalised, activated result take one read and one write of memory, and the gradient another: ``x`` and the cotangent
in, the cotangent of ``x`` out. Row-major, where all channels of a pixel are contiguous, operands are read once for the
sums and once more for the result. The gradient is a primitive too, the transpose of the one for the tangents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import fail
from sparsejax._compat import ad, instantiate, out_aval
from sparsejax._typing import ArrayLike
from sparsejax.kernels import _reference_norm
from sparsejax.kernels._batching import fold_channels
from sparsejax.kernels._layout import Layout, shared_layout
from sparsejax.kernels._operands import check_channel_vector, check_channels, check_same
from sparsejax.kernels._primitive import define, define_derivative
from sparsejax.kernels._reference import accumulator
from sparsejax.kernels._targets import cpu_lowering

ACTIVATIONS = ("none", "relu")


def _vector(x: Any) -> Any:
    return out_aval(x, x.shape[-1:], accumulator(x.dtype))


def _image(x: Any) -> Any:
    return out_aval(x, x.shape, x.dtype)


def _tangent_avals(tx: Any, *_: Any, **params: Any) -> tuple[Any, ...]:
    return _image(tx), _vector(tx), _vector(tx)


def _grad_avals(ct: Any, *_: Any, gate: str, **params: Any) -> tuple[Any, ...]:
    return _image(ct), _vector(ct), _vector(ct), *([_image(ct)] if gate == "output" else [])


def _attributes(ctx: Any, epsilon: float, activation: str) -> dict[str, Any]:
    return {"epsilon": np.float64(epsilon), "activation": activation}


def _grad_attributes(ctx: Any, epsilon: float, gate: str) -> dict[str, Any]:
    return _attributes(ctx, epsilon, "none" if gate == "open" else "relu")


def _grad_in_place(gate: str, **params: Any) -> dict[int, int]:
    """The cotangent of ``x`` replaces that of ``y``, where nothing else reads that.

    Memory that was just read need not be fetched to be written: measured, that halves the time of the gradient. With an
    open gate the cotangent may be that of a residual added outside too, and XLA would copy it.
    """
    return {} if gate == "open" else {0: 0}


_norm_primitive, _norm = define(
    "sparsejax_batch_norm",
    abstract=_tangent_avals,
    reference=_reference_norm.batch_norm,
    cpu_lowering=cpu_lowering("sparsejax_batch_norm_v2", attributes=_attributes, activations="x"),
    batch=fold_channels,
    multiple_results=True,
    batch_sums=False,
)

_tangent = define_derivative(
    "sparsejax_batch_norm_tangent",
    linear=_reference_norm.moving,
    abstract=_tangent_avals,
    reference=_reference_norm.batch_norm_tangent,
    cpu_lowering=None,
    transpose=lambda cts, *point, **params: _grad(*cts, *point, **params),
    batch=fold_channels,
)

_grad = define_derivative(
    "sparsejax_batch_norm_grad",
    linear=lambda **params: 3,
    abstract=_grad_avals,
    reference=_reference_norm.batch_norm_grad,
    cpu_lowering=cpu_lowering(
        "sparsejax_batch_norm_grad_v2",
        attributes=_grad_attributes,
        in_place=_grad_in_place,
        activations="x",
        in_a_loop=True,
    ),
    transpose=lambda cts, *point, **params: _tangent(*cts, *point, **params),
    batch=fold_channels,
    batch_sums=False,
)


def _norm_jvp(primals: Sequence[Any], tangents: Sequence[Any], activation: str, **params: Any) -> Any:
    y, mean, var = _norm(*primals, activation=activation, **params)
    x, scale, bias, *residual = primals
    moved, point = list(map(instantiate, tangents)), (x, scale, bias, mean, var)
    if activation == "none":
        ty, tmean, tvar = _tangent(*moved[:3], *point, gate="open", **params)
        return (y, mean, var), (ty + moved[3] if residual else ty, tmean, tvar)
    if residual:
        return (y, mean, var), _tangent(*moved, *point, y, gate="output", **params)
    return (y, mean, var), _tangent(*moved, *point, gate="input", **params)


ad.primitive_jvps[_norm_primitive] = _norm_jvp


def batch_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    *,
    epsilon: float,
    activation: str = "none",
    layout: Layout | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise each channel by its mean and variance, then add and activate, in one pass.

    y[..., c] = activation((x[..., c] - mean[c]) / sqrt(var[c] + epsilon) * scale[c] + bias[c] + residual[..., c])

    Args:
      x: float[batch, ..., channels]; float32, float64 or bfloat16, two or more axes.
      scale: float[channels] in the accumulation type of ``x`` (float32 for bfloat16); None is ones.
      bias: as ``scale``; None is zeros.
      residual: float of the shape and dtype of ``x``, added before the activation, or None.
      epsilon: added to the variance. Static.
      activation: "none" or "relu". Static.
      layout: how ``x``, ``residual`` and ``y`` lie in memory. Static. None is the layout that products give by default:
        row-major for two axes, as linear layers have, and batch-minor for more, as convolutions.

    Returns:
      ``(y, mean, var)``: y of the shape and dtype of ``x``; mean and variance (divided by the number of elements)
      float[channels] in the accumulation type. The variance is formed from differences to the mean of runs of elements,
      which are added in double; a channel's result depends on that channel only, never on the number of threads. An
      empty batch gives NaN statistics.

    Raises:
      ValueError: shapes or dtypes disagree, or an unknown activation.

    Cost: batch-minor, reads ``x`` (and ``residual``) and writes ``y`` once, where a channel fits the cache; the
    gradient reads the cotangent and ``x`` (with a residual and an activation also ``y``) and writes the cotangents
    once. Row-major, reads ``x``, and in the gradient the cotangent, twice.
    Differentiable in all operands and for all results, any order, both modes; the derivative of ReLU at 0 is 0.
    Source: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1; He et al. 2016 for residual and ReLU.

    >>> y, mean, var = batch_norm(jnp.array([[1.0], [3.0]]), epsilon=0.0, activation="relu")
    >>> y.tolist(), mean.tolist(), var.tolist()
    ([[0.0], [1.0]], [2.0], [1.0])
    """
    x = jnp.asarray(x)
    check_channels("batch_norm", "x", x)
    if activation not in ACTIVATIONS:
        fail("batch_norm", "activation", f"value {activation!r}", "one of " + ", ".join(map(repr, ACTIVATIONS)))
    wide = accumulator(x.dtype)
    scale = jnp.ones(x.shape[-1:], wide) if scale is None else jnp.asarray(scale)
    bias = jnp.zeros(x.shape[-1:], wide) if bias is None else jnp.asarray(bias)
    check_channel_vector("batch_norm", "scale", scale, x)
    check_channel_vector("batch_norm", "bias", bias, x)
    rest = () if residual is None else (jnp.asarray(residual),)
    for r in rest:
        check_same("batch_norm", "residual", r, x)
    layouts = shared_layout(x.ndim, layout)
    y, mean, var = _norm(x, scale, bias, *rest, epsilon=float(epsilon), activation=activation, layouts=layouts)
    return y, mean, var
