"""Which layers pay as sparse ones: predicted by the cost model, or measured in both forms."""

from __future__ import annotations

import math
import statistics
import time
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax._compat import memory_format, with_layout_constraint
from sparsejax._typing import PyTree
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, per_axis
from sparsejax.nn._record import Call
from sparsejax.nn.cost_model import Work, predict

# What the rule assumes without an input: large enough that the cost of a call does not count.
NOMINAL_TOKENS = 4096  # rows of a linear layer's input
NOMINAL_IMAGES, NOMINAL_SIDE = 64, 32  # batch and pixels per axis of a convolution's, or twice the window if more

Policy: TypeAlias = Literal["measured", "rule", "always"]

ROUNDS = 7  # timed runs of each form; the median counts


def predict_layers(dense: Any, sparse: Any, calls: list[Call]) -> tuple[float, float]:
    """Predict the seconds of forward + backward of a dense layer and its sparse form, summed over the inputs."""
    rank = len(getattr(dense, "kernel_size", ()))
    strides = per_axis("sparsify", "strides", getattr(dense, "strides", 1), rank)
    total = [0.0, 0.0]
    for call in calls:
        output = nnx.eval_shape(lambda layer, inputs: layer(inputs), dense, call)
        x, y = call.shape, output.shape
        if not rank and not isinstance(getattr(dense, "in_features", None), int):  # a product over several axes
            x, y = (
                (math.prod(shape) // size, size)
                for shape, size in ((x, sparse.pattern.columns), (y, sparse.pattern.rows))
            )
        work = Work(sparse.pattern.shape, sparse.pattern.nse, x, y, max(strides, default=1) > 1)
        total = [t + seconds for t, seconds in zip(total, predict(work), strict=True)]
    return total[0], total[1]


def nominal_call(layer: Any) -> Call:
    """Return the input that the rule assumes for a dense layer where it knows none."""
    if isinstance(layer, nnx.Einsum):
        sizes = dict(zip(layer.einsum_str.split("->")[0].split(",")[1], layer.kernel_shape, strict=True))
        labels = layer.einsum_str.split(",")[0].replace("...", ".")
        return Call(_with_tokens([sizes.get(label) for label in labels]), jnp.float32)
    if isinstance(layer, nnx.LinearGeneral):
        count = max(len(layer.axis) + 1, max(layer.axis) + 1, -min(layer.axis))
        count += len({axis % count for axis in layer.axis}) < len(layer.axis)
        places = dict(zip(sorted(axis % count for axis in layer.axis), layer.in_features, strict=True))
        return Call(_with_tokens([places.get(axis) for axis in range(count)]), jnp.float32)
    if not hasattr(layer, "kernel_size"):
        return Call((NOMINAL_TOKENS, layer.in_features), jnp.float32)
    dilations = per_axis("sparsify", "kernel_dilation", layer.kernel_dilation, len(layer.kernel_size))
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(layer.kernel_size, dilations, strict=True)]
    return Call((NOMINAL_IMAGES, *(max(NOMINAL_SIDE, 2 * w) for w in windows), layer.in_features), jnp.float32)


def _with_tokens(sizes: list[int | None]) -> tuple[int, ...]:
    """Sizes of an input's axes: the first one that is not the layer's has the nominal rows, the others of them 1."""
    free = [i for i, size in enumerate(sizes) if size is None]
    return tuple((NOMINAL_TOKENS if i == free[0] else 1) if size is None else size for i, size in enumerate(sizes))


def time_layers(dense: Any, sparse: Any, calls: list[Call]) -> tuple[float, float]:
    """Measure the seconds of forward + backward of a dense layer and its sparse form, summed over the inputs.

    Both are jitted, warmed up and timed alternately (A B A B ...); medians of ``ROUNDS`` runs. Each form gets its
    activations in its own layout (between other sparse convolutions that is batch-minor), so that a transposition at
    the edge of a sparse stretch is not charged to every layer in it.
    """
    total = [0.0, 0.0]
    for call in calls:
        steps = [
            compile_step(dense, call, batch_minor=False),
            compile_step(sparse, call, batch_minor=getattr(sparse, "layouts", ROW_MAJOR) == BATCH_MINOR),
        ]
        times: list[list[float]] = [[], []]
        for step, operands in steps:
            jax.block_until_ready(step(*operands))
        for _ in range(ROUNDS):
            for (step, operands), samples in zip(steps, times, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(step(*operands))
                samples.append(time.perf_counter() - start)
        total = [t + statistics.median(samples) for t, samples in zip(total, times, strict=True)]
    return total[0], total[1]


def compile_step(layer: Any, call: Call, *, batch_minor: bool) -> tuple[jax.stages.Wrapped, tuple[Any, ...]]:
    """Return one forward and backward pass under ``jit``, and random operands for it.

    Args:
      layer: dense or sparse.
      call: shape and dtype of its input.
      batch_minor: whether the batch is the fastest axis of activations in memory, and features the slowest; else they
        are row-major.
    """
    graphdef, parameters, rest = nnx.split(layer, nnx.Param, ...)
    of_input = call.dtype if jnp.issubdtype(call.dtype, jnp.floating) else jnp.float32
    dtype = getattr(layer, "dtype", None) or of_input  # no cast: XLA refuses to give its result a batch-minor format
    several = not isinstance(getattr(layer, "in_features", None), int)  # axes, which are not to be merged
    lead = 0 if several else len(call.shape) - 1 - len(getattr(layer, "kernel_size", ()))
    batch_minor = batch_minor and not several
    # As one batch axis, which both layers make of the leading axes: XLA would copy in order to merge them.
    shape = call.shape if several else (math.prod(call.shape[:lead]), *call.shape[lead:])
    x = jax.random.normal(jax.random.key(0), shape, dtype)

    def form(rank: int) -> Any:
        order = (rank - 1, *range(1, rank - 1), 0) if batch_minor else tuple(range(rank))
        return memory_format(order, x.sharding)

    def forward(rest: Any, parameters: Any, x: jax.Array) -> jax.Array:
        # The bias is added in this layout, as between layers: the format of a result does not reach elementwise work.
        y = nnx.merge(graphdef, parameters, rest)(x)
        return with_layout_constraint(y, form(y.ndim).layout)

    def step(rest: Any, parameters: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        y, pullback = jax.vjp(partial(forward, rest), parameters, x)
        return y, pullback(cotangent)

    output = jax.eval_shape(forward, rest, parameters, x)
    cotangent = jax.random.normal(jax.random.key(1), output.shape, output.dtype)
    parameters, rest = jax.device_put((parameters, rest), x.sharding)
    forms = form(x.ndim), form(output.ndim)
    operands = (rest, parameters, *(jax.device_put(*pair) for pair in zip((x, cotangent), forms, strict=True)))
    return jax.jit(step, out_shardings=(forms[1], (None, forms[0]))), operands


def check_policy(policy: str, sample_input: PyTree) -> None:
    """Refuse an unknown policy, and "measured" without an input."""
    if policy not in ("measured", "rule", "always"):
        fail("sparsify", "policy", f"value {policy!r}", "'measured', 'rule' or 'always'")
    if policy == "measured" and sample_input is None:
        hint = "Or choose policy='rule' or 'always', which measure nothing."
        fail("sparsify", "sample_input", "no value", "an input of the model for policy 'measured'", hint)
