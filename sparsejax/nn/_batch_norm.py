"""Batch norm in the layout of its neighbours, fused with the residual and the activation that follow it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax.kernels import Layout, batch_norm, channel_dot, channel_scale, channel_shift, channel_sum, is_supported


class BatchNorm(nnx.BatchNorm):
    """``flax.nnx.BatchNorm`` with the same variables, options and results, for use between sparse layers.

    y = (x - mean) / sqrt(var + epsilon) * scale + bias, mean and var over every axis but the features

    ``jnp.mean`` makes XLA's CPU compiler copy activations to row-major order and compute all that is near in it; this
    module takes ``sparsejax.kernels.batch_norm`` instead, one kernel forward and one backward, and channel sums where a
    mask or ``axis_name`` is used. What follows it can be part of that kernel: see `norm_act`. Inputs that those do not
    serve (a feature axis that is not the last, float16, complex) take Flax's own path.

    Args:
      num_features, axis, momentum, epsilon, use_running_average: as ``flax.nnx.BatchNorm``.
      use_bias, use_scale, bias_init, scale_init, rngs: the same.
      dtype, param_dtype, promote_dtype, axis_name, axis_index_groups: the same.
      use_fast_variance: matters with a mask or ``axis_name`` only. Otherwise the variance is always formed from
        differences to the mean: it costs no more here, and loses no digits to a large mean.

    Attributes:
      layout: how activations of three or more axes lie in memory; row-major, unless `plan_layouts` or you set something
        else. Those of two axes are row-major, as linear layers have them. Static; numbers do not depend on it.

    Source: Ioffe and Szegedy 2015; variables and defaults of Flax.

    >>> layer = BatchNorm(2, use_running_average=False, rngs=nnx.Rngs(0))
    >>> layer(jnp.array([[1.0, 2.0], [3.0, 6.0]])).round(3).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    layout: Layout = Layout.ROW_MAJOR

    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalise ``x[batch, ..., features]``; updates the running statistics unless they are used.

        Args:
          x: float[batch, ..., features].
          use_running_average: overrides the constructor's option.
          mask: bool, broadcastable to ``x``: the positions that count in the statistics.

        Returns:
          Array of the shape of ``x``, in ``dtype`` unless that is None.
        """
        return self._apply(x, use_running_average, mask, None, "none")

    def _apply(
        self,
        x: jax.Array,
        use_running_average: bool | None,
        mask: jax.Array | None,
        residual: jax.Array | None,
        activation: str,
    ) -> jax.Array:
        """``activation(norm(x) + residual)``."""
        last = self.axis in (-1, x.ndim - 1)
        promoted, *_ = self.promote_dtype((x, self.mean[...], self.var[...]), dtype=self.dtype)
        if not last or x.ndim < 2 or not is_supported(promoted.dtype):
            return _activate(super().__call__(x, use_running_average, mask=mask), residual, activation)
        use_running = self.use_running_average if use_running_average is None else use_running_average
        if use_running is None:
            fail("BatchNorm", "use_running_average", "no value", "True or False, in the constructor or the call")
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        x, mean, var, scale, bias = self.promote_dtype(
            (x, self.mean[...], self.var[...], scale, bias), dtype=self.dtype
        )
        if use_running:
            return _activate(self._normalize(x, mean, var, scale, bias), residual, activation)
        if mask is None and self.axis_name is None:
            return self._fused(x, scale, bias, residual, activation)
        mean, var = self._statistics(x, mask)
        self._update(mean, var)
        return _activate(self._normalize(x, mean, var, scale, bias), residual, activation)

    def _fused(
        self,
        x: jax.Array,
        scale: jax.Array | None,
        bias: jax.Array | None,
        residual: jax.Array | None,
        activation: str,
    ) -> jax.Array:
        """The statistics of this batch and all that follows in one kernel."""
        wide = jnp.promote_types(x.dtype, jnp.float32)
        scale, bias = (None if v is None else v.astype(wide) for v in (scale, bias))
        fits = residual is None or (residual.shape, residual.dtype) == (x.shape, x.dtype)
        if fits:
            y, mean, var = batch_norm(
                x, scale, bias, residual, epsilon=self.epsilon, activation=activation, layout=self._layout_of(x)
            )
        else:
            y, mean, var = batch_norm(x, scale, bias, epsilon=self.epsilon, layout=self._layout_of(x))
        self._update(mean, var)
        return y if fits else _activate(y, residual, activation)

    def _layout_of(self, x: jax.Array) -> Layout:
        return Layout.ROW_MAJOR if x.ndim == 2 else self.layout

    def _update(self, mean: jax.Array, var: jax.Array) -> None:
        """Move the running statistics towards those of a batch."""
        for running, batch in ((self.mean, mean), (self.var, var)):
            average = self.momentum * running[...] + (1 - self.momentum) * batch
            running[...] = jax.lax.stop_gradient(average).astype(running[...].dtype)

    def _statistics(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Mean and variance per feature, at least float32, averaged over ``axis_name`` if there is one."""
        layout = self._layout_of(x)
        weight = None if mask is None else jnp.broadcast_to(mask, x.shape).astype(x.dtype)
        count = math.prod(x.shape[:-1]) if weight is None else channel_sum(weight, layout=layout)
        x = x if weight is None else x * weight

        def average(*sums: jax.Array) -> list[jax.Array]:
            means = jnp.stack(sums) / count
            if self.axis_name is not None:
                means = jax.lax.pmean(means, self.axis_name, axis_index_groups=self.axis_index_groups)
            return list(means)

        if self.use_fast_variance:
            mean, square = average(channel_sum(x, layout=layout), channel_dot(x, x, layout=layout))
            return mean, jnp.maximum(0.0, square - mean * mean)
        (mean,) = average(channel_sum(x, layout=layout))
        centred = channel_shift(x.astype(mean.dtype), -mean, layout=layout)
        if weight is not None:
            centred = centred * weight.astype(mean.dtype)
        (var,) = average(channel_dot(centred, centred, layout=layout))
        return mean, var

    def _normalize(
        self,
        x: jax.Array,
        mean: jax.Array,
        var: jax.Array,
        scale: jax.Array | None,
        bias: jax.Array | None,
    ) -> jax.Array:
        layout, wide = self._layout_of(x), jnp.promote_types(jnp.result_type(x, mean), jnp.float32)
        factor = jax.lax.rsqrt(var + self.epsilon).astype(wide)
        if scale is not None:
            factor = factor * scale
        centred = channel_shift(x.astype(wide), -mean.astype(wide), layout=layout)
        y = channel_scale(centred, factor, layout=layout)
        if bias is not None:
            y = channel_shift(y, bias.astype(wide), layout=layout)
        out_dtype = self.dtype or jnp.result_type(x, *(v for v in (scale, bias) if v is not None))
        return y.astype(out_dtype)


def norm_act(
    norm: nnx.BatchNorm, x: jax.Array, residual: jax.Array | None = None, activation: str = "relu"
) -> jax.Array:
    """Apply a batch norm, an addition and an activation: ``activation(norm(x) + residual)``.

    The sum of its parts for a Flax module, and in training one kernel for a `BatchNorm` of ours, forward and backward.
    A model that is written with it gets the fused form from ``sparsify``, which swaps batch norms, with the variables
    it has.

    Args:
      norm: an ``nnx.BatchNorm``, or any module that maps ``x`` to an array of its shape.
      x: float[batch, ..., features].
      residual: added before the activation; broadcast to ``x`` (fused if it has its shape and dtype). None: nothing.
      activation: "relu" or "none".

    Returns:
      Array of the shape of ``x``, in the dtype to which ``norm`` and ``residual`` promote.

    Raises:
      ValueError: an unknown activation.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", figure 2.

    >>> norm = BatchNorm(1, rngs=nnx.Rngs(0))
    >>> norm_act(norm, jnp.array([[1.0], [3.0]]), residual=jnp.ones((2, 1))).round(3).tolist()
    [[0.0], [2.0]]
    """
    if activation not in _ACTIVATIONS:
        names = ", ".join(map(repr, _ACTIVATIONS))
        fail("norm_act", "activation", f"value {activation!r}", f"one of {names}")
    if isinstance(norm, BatchNorm):
        return norm._apply(x, None, None, residual, activation)
    return _activate(norm(x), residual, activation)


_ACTIVATIONS = {"relu": nnx.relu, "none": lambda y: y}


def _activate(y: Any, residual: Any, activation: str) -> jax.Array:
    return _ACTIVATIONS[activation](y if residual is None else y + residual)
