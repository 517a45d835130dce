"""Batch norm, its residual and activation, and their gradients from the definition, in NumPy and float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from helpers.grid import assert_close, normal, wide
from sparsejax.kernels import Layout, batch_norm

EPSILON = 1e-3


class NormCase(NamedTuple):
    """One call: the shape of x, what is added, what follows, which vectors are given, and the layout in memory."""

    shape: tuple[int, ...]
    residual: bool = False
    activation: str = "none"
    scale: bool = True
    bias: bool = True
    layout: Layout | None = None


class Operands(NamedTuple):
    """Operands and the cotangents of the three results; None where the case has no such operand."""

    x: Any
    scale: Any
    bias: Any
    residual: Any
    ct: Any
    ct_mean: Any
    ct_var: Any


def operands(case: NormCase, dtype: str, seed: int = 0) -> Operands:
    """Random ones, with a mean and a variance that are not 0 and 1."""
    vector, channels = "float64" if dtype == "float64" else "float32", case.shape[-1:]
    x = (1.5 * wide(normal(seed, case.shape, dtype)) + 0.7).astype(jnp.dtype(dtype))
    return Operands(
        x,
        normal(seed + 1, channels, vector) if case.scale else None,
        normal(seed + 2, channels, vector) if case.bias else None,
        normal(seed + 3, case.shape, dtype) if case.residual else None,
        normal(seed + 4, case.shape, dtype),
        normal(seed + 5, channels, vector),
        normal(seed + 6, channels, vector),
    )


def run(case: NormCase, o: Operands) -> tuple[Any, Any]:
    """Results, and the gradients of all operands that the case has."""

    def f(x: Any, rest: dict[str, Any]) -> Any:
        return batch_norm(x, **rest, epsilon=EPSILON, activation=case.activation, layout=case.layout)

    rest = {k: getattr(o, k) for k in ("scale", "bias", "residual") if getattr(o, k) is not None}
    out, vjp = jax.vjp(f, o.x, rest)
    dx, more = vjp((jnp.asarray(o.ct), jnp.asarray(o.ct_mean), jnp.asarray(o.ct_var)))
    return out, {"x": dx, **more}


def check_norm(case: NormCase, dtype: str, seed: int = 0) -> None:
    """Results and gradients within the rounding of their sums.

    Whether ReLU let an element through is taken from the ``y`` that came: it is one rounding away from the exact sign.
    """
    o = operands(case, dtype, seed)
    (y, mean, var), grads = jax.jit(run, static_argnums=0)(case, o)
    vector = "float64" if dtype == "float64" else "float32"
    x, axes, n = wide(o.x), tuple(range(len(case.shape) - 1)), max(1, int(np.prod(case.shape[:-1])))
    scale = np.ones(x.shape[-1]) if o.scale is None else wide(o.scale)
    bias = np.zeros(x.shape[-1]) if o.bias is None else wide(o.bias)
    residual = np.zeros(()) if o.residual is None else wide(o.residual)

    m, v = x.mean(axes), x.var(axes)
    rstd = 1 / np.sqrt(v + EPSILON)
    hat = (x - m) * rstd
    z = hat * scale + bias + residual
    far = np.abs(hat) + (np.abs(x) + np.abs(m)) * rstd  # hat, and what its difference was formed from
    size = far * np.abs(scale) + np.abs(bias) + np.abs(residual)
    assert_close(mean, m, np.abs(x).mean(axes), vector)
    assert_close(var, v, v + np.abs(m) * np.sqrt(v) + np.square(m) * np.finfo(vector).eps, vector)
    assert_close(y, np.maximum(z, 0) if case.activation == "relu" else z, size, dtype)

    g = np.where(wide(y) > 0, wide(o.ct), 0) if case.activation == "relu" else wide(o.ct)
    dhat = g * scale
    dvar = (dhat * (x - m)).sum(axes) * -0.5 * rstd**3 + wide(o.ct_var)
    dmean = -dhat.sum(axes) * rstd + wide(o.ct_mean) - 2 * dvar * (x - m).mean(axes)
    dx = dhat * rstd + dvar * 2 * (x - m) / n + dmean / n
    along = (np.abs(g) * far).sum(axes)
    spread = np.abs(scale) * rstd * (np.abs(g) + np.abs(g).sum(axes) / n + far * along / n)
    extra = (np.abs(wide(o.ct_mean)) + 2 * np.abs(wide(o.ct_var)) * (np.abs(x) + np.abs(m))) / n
    assert_close(grads["x"], dx, spread + extra, dtype)
    if case.scale:
        assert_close(grads["scale"], (g * hat).sum(axes), along, vector)
    if case.bias:
        assert_close(grads["bias"], g.sum(axes), np.abs(g).sum(axes), vector)
    if case.residual:
        assert np.array_equal(wide(grads["residual"]), g)


COMPACT_NORMS = tuple(
    case._replace(layout=layout)
    for layout in Layout
    for case in (
        NormCase((33, 7, 5, 3), True, "relu"),
        NormCase((16, 9, 9, 5), False, "relu"),
        NormCase((3, 37, 41, 2), True, "none"),
        NormCase((1, 5, 67), False, "none"),
        NormCase((7, 3, 30), False, "relu"),
        NormCase((100, 4), True, "relu"),
    )
)
