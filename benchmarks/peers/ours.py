"""sparsejax itself, twice: between sparse layers (batch-minor activations), and alone (row-major in and out)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sx
from sparsejax import _compat
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layouts

from ..cases._case import BACKWARD, BFLOAT16_TOLERANCE, FORWARD, RESULTS, STEP, TOLERANCE, Case
from ._peer import Call, Peer, Variant

BETWEEN, ALONE = "between", "alone"


def layer(case: Case, layouts: Layouts = ROW_MAJOR) -> Callable[[Any, Any, Any], Any]:
    """The layer as a function of stored values, pattern and activations."""
    shape = case.shape
    if shape.kind == "linear":
        return functools.partial(sx.spmm, layouts=layouts)
    return functools.partial(sx.conv, strides=shape.stride, padding=shape.padding, layouts=layouts)


def with_gradients(product: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any, Any], Any]:
    """Forward and both gradients: ``(y, dx, dw)`` of values, pattern, activations and cotangent."""

    def step(data: Any, pattern: Any, x: Any, cotangent: Any) -> Any:
        y, pullback = jax.vjp(lambda d, z: product(d, pattern, z), data, x)
        dw, dx = pullback(cotangent)
        return y, dx, dw

    return step


def memory_format(rank: int, *, batch_minor: bool) -> _compat.Format:
    """How activations of this rank lie in memory: row-major, or the batch fastest and the features slowest."""
    order = (rank - 1, *range(1, rank - 1), 0) if batch_minor else tuple(range(rank))
    return _compat.memory_format(order, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def _prepare(case: Case, dtype: str) -> list[Variant]:
    pattern = sx.SparsityPattern.from_mask(case.mask)
    data = pattern.gather(jnp.asarray(case.kernel)).astype(dtype)
    between, alone = (_calls(case, data, pattern, batch_minor=minor) for minor in (True, False))
    return [Variant(BETWEEN, between), Variant(ALONE, {name: alone[name] for name in (FORWARD, STEP)})]


def _calls(case: Case, data: Any, pattern: Any, *, batch_minor: bool) -> dict[str, Call]:
    product = layer(case, BATCH_MINOR if batch_minor else ROW_MAJOR)
    form = memory_format(case.x.ndim, batch_minor=batch_minor)
    x, cotangent = (jax.device_put(jnp.asarray(a, data.dtype), form) for a in (case.x, case.cotangent))

    step = with_gradients(product)

    # A product is linear in each operand: what the gradients need of the forward pass is nothing, and is dropped.
    def backward(data: Any, pattern: Any, x: Any, cotangent: Any) -> Any:
        return step(data, pattern, x, cotangent)[1:]

    def input_grad(data: Any, pattern: Any, x: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda z: product(data, pattern, z), x)[1](cotangent)

    def weight_grad(data: Any, pattern: Any, x: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda d: product(d, pattern, x), data)[1](cotangent)

    def read(result: Any, name: str) -> dict[str, np.ndarray]:
        arrays = zip(RESULTS[name], jax.tree.leaves(result), strict=True)
        return {key: np.asarray(array, np.float32) for key, array in arrays}

    def call(name: str, function: Callable[..., Any], formats: Any, *more: Any) -> Call:
        compiled = jax.jit(function, out_shardings=formats)
        operands = data, pattern, x, *more
        return Call(lambda: jax.block_until_ready(compiled(*operands)), functools.partial(read, name=name))

    return {
        FORWARD: call(FORWARD, product, form),
        STEP: call(STEP, step, (form, form, None), cotangent),
        BACKWARD: call(BACKWARD, backward, (form, None), cotangent),
        "input_grad": call("input_grad", input_grad, (form,), cotangent),
        "weight_grad": call("weight_grad", weight_grad, None, cotangent),
    }


PEER, BFLOAT16 = (
    Peer(
        name,
        absent=lambda: None,
        unsupported=lambda case: None,
        prepare=functools.partial(_prepare, dtype=dtype),
        tolerance=tolerance,
    )
    for name, dtype, tolerance in (
        ("sparsejax", "float32", TOLERANCE),
        ("sparsejax_bfloat16", "bfloat16", BFLOAT16_TOLERANCE),
    )
)
