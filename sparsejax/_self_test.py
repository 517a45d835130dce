"""Every FFI target against its meaning in plain JAX, on a few shapes: is this build good on this machine?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.kernels import (
    ConvGeometry,
    PoolGeometry,
    _attention,
    _channel,
    _conv,
    _matmul,
    _norm,
    _pool,
    _reference,
    _reference_attention,
    _reference_norm,
    _reference_pool,
)
from sparsejax.kernels._layout import BATCH_MINOR, ROW_MAJOR, Layout, Layouts
from sparsejax.kernels._operands import pattern_operands
from sparsejax.kernels._targets import TARGETS
from sparsejax.pattern import SparsityPattern

# Largest error, relative to the largest reference value: rounding over sums of a few hundred terms; two units in
# the last place for bfloat16, whose sums are float32 in both.
TOLERANCES = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 2**-6}

# One image, fewer than a vector, and two tiles with a tail.
_BATCHES = (1, 7, 33)
_LAYOUTS = (BATCH_MINOR, Layouts(Layout.ROW_MAJOR, Layout.BATCH_MINOR), ROW_MAJOR)


@dataclass(frozen=True)
class SelfTest:
    """Result for one target and dtype.

    Attributes:
      target: FFI target.
      dtype: dtype of the operands.
      ok: whether every shape agreed with the reference within ``TOLERANCES``.
      error: largest absolute error over the shapes, divided by the largest reference value; NaN if it did not run.
      detail: what went wrong, empty if nothing.
    """

    target: str
    dtype: str
    ok: bool
    error: float
    detail: str = ""


@dataclass(frozen=True)
class _Case:
    """One target: the primitive, its meaning, and operands for each shape to try."""

    call: Callable[..., Any]
    reference: Callable[..., Any]
    operands: Callable[[_Draw], Iterator[tuple[tuple[Any, ...], dict[str, Any]]]]


class _Draw:
    """Random operands in one dtype."""

    def __init__(self, dtype: str) -> None:
        self._rng = np.random.default_rng(0)
        self._dtype = jnp.dtype(dtype)

    def normal(self, *shape: int) -> jax.Array:
        return jnp.asarray(self._rng.standard_normal(shape), self._dtype)

    def sums(self, *shape: int) -> jax.Array:
        """As ``normal``, in the type in which sums are formed."""
        return self.normal(*shape).astype(_reference.accumulator(self._dtype))

    def pattern(self, *shape: int) -> SparsityPattern:
        """A random pattern that keeps a fifth, with an empty output and two entries of padding."""
        mask = self._rng.random(shape) < 0.2
        mask[..., 0] = False
        return SparsityPattern.from_mask(mask, nse=int(mask.sum()) + 2)

    def taps(self, taps: int, *shape: int) -> jax.Array:
        return jnp.asarray(self._rng.integers(0, taps, shape), jnp.int32)


def _products(*names: str) -> Callable[[_Draw], Iterator[Any]]:
    """Operands of a product of a ``(50, 24)`` kernel; each is "data", "x" (inputs) or "y" (outputs)."""

    def operands(draw: _Draw) -> Iterator[Any]:
        for batch, layouts in zip(_BATCHES, _LAYOUTS, strict=True):
            pattern = draw.pattern(50, 24)
            sizes = {"data": (pattern.nse,), "x": (batch, 50), "y": (batch, 24)}
            arrays = (draw.normal(*sizes[name]) for name in names)
            yield (*arrays, *pattern_operands(pattern)), {"layouts": layouts}

    return operands


# One for each batch: a plain one, one axis with a stride, and strides, dilation and groups on an odd image.
_CONVOLUTIONS = (
    ConvGeometry((8, 8), 6, 10, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
    ConvGeometry((12,), 6, 10, (5,), (2,), ((2, 2),), (1,), (1,), 1),
    ConvGeometry((9, 7), 6, 10, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1), (1, 2), 2),
)


def _convolutions(*names: str) -> Callable[[_Draw], Iterator[Any]]:
    """As ``_products``, for the convolutions."""

    def operands(draw: _Draw) -> Iterator[Any]:
        for batch, g, layouts in zip(_BATCHES, _CONVOLUTIONS, _LAYOUTS, strict=True):
            pattern = draw.pattern(*g.kernel_shape)
            sizes = {
                "data": (pattern.nse,),
                "x": (batch, *g.in_spatial, g.in_features),
                "y": (batch, *g.out_spatial, g.out_features),
            }
            arrays = (draw.normal(*sizes[name]) for name in names)
            yield (*arrays, *pattern_operands(pattern)), {"geometry": g, "layouts": layouts}

    return operands


# One for each batch: without and with overlap and padding, and one axis.
_POOLINGS = (
    PoolGeometry((8, 8), (2, 2), (2, 2), ((0, 0), (0, 0))),
    PoolGeometry((9,), (4,), (2,), ((1, 1),)),
    PoolGeometry((9, 7), (3, 3), (2, 1), ((1, 1), (1, 0))),
)


def _poolings(side: str, record: bool = False) -> Callable[[_Draw], Iterator[Any]]:
    """Operands of a pooling: inputs "x" or outputs "y", and for ``record`` the tap that won for each output."""

    def operands(draw: _Draw) -> Iterator[Any]:
        for batch, g, layouts in zip(_BATCHES, _POOLINGS, (BATCH_MINOR, ROW_MAJOR, BATCH_MINOR), strict=True):
            out = (batch, *g.out_spatial, 5)
            values = draw.normal(batch, *g.in_spatial, 5) if side == "x" else draw.normal(*out)
            yield (values, *((draw.taps(4, *out),) if record else ())), {"geometry": g, "layouts": layouts}

    return operands


def _images(count: int) -> Callable[[_Draw], Iterator[Any]]:
    def operands(draw: _Draw) -> Iterator[Any]:
        for batch, layouts in zip(_BATCHES, (ROW_MAJOR, BATCH_MINOR, ROW_MAJOR), strict=True):
            yield tuple(draw.normal(batch, 5, 6, 11) for _ in range(count)), {"layouts": layouts}

    return operands


def _norms(draw: _Draw) -> Iterator[Any]:
    """Batch norms without and with a residual and an activation."""
    for batch, layouts in zip(_BATCHES, (ROW_MAJOR, BATCH_MINOR, ROW_MAJOR), strict=True):
        x, scale, bias, residual = (
            draw.normal(batch, 5, 6, 11),
            draw.sums(11),
            draw.sums(11),
            draw.normal(batch, 5, 6, 11),
        )
        yield (x, scale, bias), {"epsilon": 1e-3, "activation": "none", "layouts": layouts}
        yield (x, scale, bias, residual), {"epsilon": 1e-3, "activation": "relu", "layouts": layouts}


def _norm_gradients(draw: _Draw) -> Iterator[Any]:
    """Their gradients, at the mean 0 and the variance 1.

    The bias of the gate that is computed from x is far from 0, so that rounding cannot move an element across it.
    """
    for batch, layouts in zip(_BATCHES, (ROW_MAJOR, BATCH_MINOR, ROW_MAJOR), strict=True):
        ct, x, y = (draw.normal(batch, 5, 6, 11) for _ in range(3))
        ct_mean, ct_var, scale = (draw.sums(11) for _ in range(3))
        bias = jnp.where(jnp.arange(11) % 2, 50, -50).astype(scale.dtype)
        point = (ct, ct_mean, ct_var, x, scale, bias, jnp.zeros_like(bias), jnp.ones_like(bias))
        yield point, {"epsilon": 1e-3, "gate": "open", "layouts": layouts}
        yield point, {"epsilon": 1e-3, "gate": "input", "layouts": layouts}
        yield (*point, y), {"epsilon": 1e-3, "gate": "output", "layouts": layouts}


def _attentions(gradient: bool) -> Callable[[_Draw], Iterator[Any]]:
    """Attention without more, causal with a bias, and with a mask and heads that share keys; or its gradient."""

    def operands(draw: _Draw) -> Iterator[Any]:
        for length, kv_heads, kind in zip((1, 70, 33), (4, 4, 2), ("", "bias", "mask"), strict=True):
            q, k, v = draw.normal(2, length, 4, 9), draw.normal(2, 37, kv_heads, 9), draw.normal(2, 37, kv_heads, 9)
            extra = {"": (), "bias": (draw.sums(2, length * 37),), "mask": (draw.taps(2, length * 37) > 0,)}[kind]
            axes = {"bias": {"bias": (1, 0, 1, 1)}, "mask": {"mask": (0, 0, 1, 1)}}.get(kind, {})
            params: dict[str, Any] = {"scale": 0.3, "causal": kind == "bias", "bias": (), "mask": (), **axes}
            if not gradient:
                yield (q, k, v, *extra), params
                continue
            y, peak, log_sum = _reference_attention.attention(q, k, v, *extra, **params)
            ct, ct_log_sum = draw.normal(*q.shape), draw.sums(*log_sum.shape)
            yield (ct, ct_log_sum, q, k, v, y, peak, log_sum, *extra), params

    return operands


_CASES: dict[str, _Case] = {
    "sparsejax_spmm_v2": _Case(_matmul._spmm, _reference.spmm, _products("data", "x")),
    "sparsejax_spmm_t_v2": _Case(_matmul._spmm_t, _reference.spmm_t, _products("data", "y")),
    "sparsejax_sddmm_v2": _Case(_matmul._sddmm, _reference.sddmm, _products("x", "y")),
    "sparsejax_spmm_backward_v2": _Case(_matmul._spmm_backward, _reference.spmm_backward, _products("y", "data", "x")),
    "sparsejax_conv_v2": _Case(_conv._conv, _reference.conv, _convolutions("data", "x")),
    "sparsejax_conv_input_grad_v2": _Case(
        _conv._conv_input_grad, _reference.conv_input_grad, _convolutions("data", "y")
    ),
    "sparsejax_conv_weight_grad_v2": _Case(
        _conv._conv_weight_grad, _reference.conv_weight_grad, _convolutions("x", "y")
    ),
    "sparsejax_conv_backward_v2": _Case(
        _conv._conv_backward, _reference.conv_backward, _convolutions("y", "data", "x")
    ),
    "sparsejax_channel_sum_v2": _Case(_channel._channel_sum, _reference.channel_sum, _images(1)),
    "sparsejax_channel_dot_v2": _Case(_channel._channel_dot, _reference.channel_dot, _images(2)),
    "sparsejax_sum_pool_v2": _Case(_pool._sum_pool, _reference_pool.sum_pool, _poolings("x")),
    "sparsejax_sum_unpool_v2": _Case(_pool._sum_unpool, _reference_pool.sum_unpool, _poolings("y")),
    "sparsejax_max_pool_v2": _Case(_pool._max_pool, _reference_pool.max_pool, _poolings("x")),
    "sparsejax_max_take_v2": _Case(_pool._max_take, _reference_pool.max_take, _poolings("x", True)),
    "sparsejax_max_put_v2": _Case(_pool._max_put, _reference_pool.max_put, _poolings("y", True)),
    "sparsejax_batch_norm_v2": _Case(_norm._norm, _reference_norm.batch_norm, _norms),
    "sparsejax_batch_norm_grad_v2": _Case(_norm._grad, _reference_norm.batch_norm_grad, _norm_gradients),
    "sparsejax_attention_v1": _Case(_attention._attention, _reference_attention.attention, _attentions(False)),
    "sparsejax_attention_grad_v1": _Case(_attention._grad, _reference_attention.attention_grad, _attentions(True)),
}


def self_test() -> list[SelfTest]:
    """Run every registered FFI target on a few shapes, in each dtype, and compare with the reference.

    error = max over shapes and elements of |kernel - reference| / max |reference|

    Returns:
      One ``SelfTest`` for each target and each of float32, float64 and bfloat16, in the order of the targets. A
      target that fails to run, or that the compiled program does not call, is reported, not raised.
    """
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        return [_test(target, dtype) for target in TARGETS for dtype in TOLERANCES]


def _test(target: str, dtype: str) -> SelfTest:
    if target not in _CASES:
        return SelfTest(target, dtype, False, float("nan"), "the self-test has no case for this target")
    try:
        compiled, operands = _compile(_CASES[target], dtype)
        if target not in (compiled.as_text() or ""):
            return SelfTest(target, dtype, False, float("nan"), "the compiled program does not call it")
        worst = max(_error(got, expected) for got, expected in compiled(operands))
    except Exception as error:  # a broken build can fail in any way, and the other targets still get their turn
        return SelfTest(target, dtype, False, float("nan"), f"{type(error).__name__}: {error}".splitlines()[0])
    ok = worst <= TOLERANCES[dtype]
    return SelfTest(target, dtype, ok, worst, "" if ok else f"above the tolerance {TOLERANCES[dtype]:.0e}")


def _compile(case: _Case, dtype: str) -> tuple[jax.stages.Compiled, list[tuple[Any, ...]]]:
    """All shapes of a case as one program, kernel and reference for each, and its operands."""
    shapes = list(case.operands(_Draw(dtype)))

    def both(operands: list[tuple[Any, ...]]) -> list[tuple[Any, Any]]:
        static = [params for _, params in shapes]
        return [
            (case.call(*args, **params), case.reference(*args, **params))
            for args, params in zip(operands, static, strict=True)
        ]

    operands = [args for args, _ in shapes]
    return jax.jit(both).lower(operands).compile(), operands


def _error(got: Any, expected: Any) -> float:
    """Largest relative error over the arrays of a result; infinite where only one of the two is finite."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        wide, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
        finite = np.isfinite(right)
        if (
            a.shape != b.shape
            or a.dtype != b.dtype
            or not np.array_equal(wide[~finite], right[~finite], equal_nan=True)
        ):
            return float("inf")
        difference = np.abs(wide - right)[finite].max(initial=0.0)
        worst = max(worst, float(difference / max(np.abs(right[finite]).max(initial=0.0), 1e-30)))
    return worst
