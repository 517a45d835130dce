"""The meaning of the fused batch norm and of its derivatives in plain JAX.

``layouts`` says how arrays lie in memory (``_layout.py``) and has no part in the meaning.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=tuple(range(x.ndim - 1)))


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)))


def batch_norm(
    x: Any, scale: Any, bias: Any, *residual: Any, epsilon: float, activation: str, layouts: Any = None
) -> tuple[Any, ...]:
    """``y = activation((x - mean) / sqrt(var + epsilon) * scale + bias [+ residual])``, and ``mean`` and ``var``."""
    wide = x.astype(scale.dtype)
    mean = _mean(wide)
    var = _mean(jnp.square(wide - mean))
    z = (wide - mean) * (scale * jax.lax.rsqrt(var + epsilon)) + bias
    for r in residual:
        z = z + r.astype(z.dtype)
    y = jax.nn.relu(z) if activation == "relu" else z
    return y.astype(x.dtype), mean, var


def batch_norm_tangent(*operands: Any, epsilon: float, gate: str, layouts: Any = None) -> tuple[Any, ...]:
    """The tangents of ``y, mean, var`` from those of ``x, scale, bias [, residual]``, at a point.

    The operands are the tangents and then the point: ``x, scale, bias, mean, var``, and ``y`` where the gate is
    "output". ``gate`` says where the activation let its input through: "open" everywhere, "input" where that input,
    computed from ``x``, is positive, "output" where ``y`` is.
    """
    count = moving(gate=gate)
    x, scale, bias, mean, var, *y = operands[count:]
    tx, tscale, tbias, *tresidual = (t.astype(scale.dtype) for t in operands[:count])
    centred, rstd = x.astype(scale.dtype) - mean, jax.lax.rsqrt(var + epsilon)
    tmean, tvar = _mean(tx), 2 * _mean(centred * tx)
    tz = (tx - tmean) * (scale * rstd) + centred * (tscale * rstd - 0.5 * tvar * scale * rstd**3) + tbias
    for t in tresidual:
        tz = tz + t
    ty = _pass(tz, centred, scale * rstd, bias, y, gate)
    return ty.astype(x.dtype), tmean, tvar


def batch_norm_grad(
    ct: Any, ct_mean: Any, ct_var: Any, *point: Any, epsilon: float, gate: str, layouts: Any = None
) -> tuple[jax.Array, ...]:
    """The transpose of ``batch_norm_tangent``: cotangents of ``x, scale, bias [, residual]``."""
    x, scale, bias, mean, var, *y = point
    centred, rstd = x.astype(scale.dtype) - mean, jax.lax.rsqrt(var + epsilon)
    g = _pass(ct.astype(scale.dtype), centred, scale * rstd, bias, y, gate)
    dbias, along = _sum(g), _sum(g * centred)
    count = jnp.asarray(math.prod(x.shape[:-1]), scale.dtype)
    slope = (2 * ct_var - scale * rstd**3 * along) / count
    offset = (ct_mean - scale * rstd * dbias) / count
    dx = g * (scale * rstd) + (centred * slope + offset)
    dresidual = [g.astype(x.dtype)] if gate == "output" else []
    return dx.astype(x.dtype), along * rstd, dbias, *dresidual


def moving(*, gate: str, **_: Any) -> int:
    """Number of tangents that ``batch_norm_tangent`` takes, and of cotangents that ``batch_norm_grad`` gives."""
    return 4 if gate == "output" else 3


def _pass(v: Any, centred: Any, factor: Any, bias: Any, y: Any, gate: str) -> jax.Array:
    """``v`` where the activation let its input through, else 0."""
    if gate == "open":
        return v
    let_through = y[0] > 0 if gate == "output" else centred * factor + bias > 0
    return jnp.where(let_through, v, jnp.zeros_like(v))
