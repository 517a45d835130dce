"""XLA's dense layers under ``jit``, on the same kernel with zeros; convolutions as NHWC and as NCHW."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..cases._case import FORWARD, STEP, Case
from ._peer import Call, Peer, Variant

# Activations and kernels, by spatial rank.
_LAYOUTS = {1: (("NWC", "WIO"), ("NCW", "OIW")), 2: (("NHWC", "HWIO"), ("NCHW", "OIHW"))}


def _prepare(case: Case) -> list[Variant]:
    if case.shape.kind == "linear":
        return [_variant(case, "matmul", lambda w, x: x @ w, (0, 1), (0, 1))]
    return [_conv(case, *layouts) for layouts in _LAYOUTS[len(case.shape.axes)]]


def _conv(case: Case, activations: str, kernel: str) -> Variant:
    rank = len(case.shape.axes)
    channels_last, kernel_last = _LAYOUTS[rank][0]

    def product(w: Any, x: Any) -> Any:
        return lax.conv_general_dilated(
            x,
            w,
            (case.shape.stride,) * rank,
            case.shape.padding,
            dimension_numbers=(activations, kernel, activations),
        )

    order = tuple(channels_last.index(axis) for axis in activations)
    kernel_order = tuple(kernel_last.index(axis) for axis in kernel)
    return _variant(case, activations, product, order, kernel_order)


def _variant(case: Case, name: str, product: Any, order: tuple[int, ...], kernel_order: tuple[int, ...]) -> Variant:
    """Calls on arrays whose axes are those of channels-last arrays in the given orders."""
    back, kernel_back = np.argsort(order), np.argsort(kernel_order)
    w = jnp.array(case.kernel.transpose(kernel_order))
    x, cotangent = jnp.array(case.x.transpose(order)), jnp.array(case.cotangent.transpose(order))

    @jax.jit
    def step(w: Any, x: Any, cotangent: Any) -> Any:
        y, pullback = jax.vjp(product, w, x)
        return y, *pullback(cotangent)

    forward = jax.jit(product)

    def read_step(result: Any) -> dict[str, np.ndarray]:
        y, dw, dx = map(np.asarray, result)
        return {"y": y.transpose(back), "dx": dx.transpose(back), "dw": case.stored(dw.transpose(kernel_back))}

    return Variant(
        name,
        {
            FORWARD: Call(lambda: jax.block_until_ready(forward(w, x)), lambda y: {"y": np.asarray(y).transpose(back)}),
            STEP: Call(lambda: jax.block_until_ready(step(w, x, cotangent)), read_step),
        },
    )


PEER = Peer("xla", absent=lambda: None, unsupported=lambda case: None, prepare=_prepare)
