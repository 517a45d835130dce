"""Which layers pay as sparse ones: predicted by the cost model, or measured in both forms."""

from __future__ import annotations

import math
import statistics
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax._compat import memory_format, with_layout_constraint
from sparsejax.kernels._geometry import dilate, per_axis
from sparsejax.nn._cost_model import Work, predict
from sparsejax.nn._graph import modules_of

# What the rule assumes where it is given no input: large enough that the cost of a call does not count.
NOMINAL_TOKENS = 4096  # rows of a linear layer's input
NOMINAL_IMAGES, NOMINAL_SIDE = 64, 32  # batch and pixels per axis of a convolution's, or twice the window if more

ROUNDS = 7  # timed runs of each form; the median counts

Call = jax.ShapeDtypeStruct


class _Recorder:
    """Collects the inputs with which one layer is called; opaque and static to NNX."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def record(self, inputs: Any) -> None:
        call = Call(jnp.shape(inputs), jnp.result_type(inputs))
        if call not in self.calls:
            self.calls.append(call)


class _RecordedLinear(nnx.Linear):
    recorder: _Recorder

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.recorder.record(inputs)
        return super().__call__(inputs, *args, **kwargs)


class _RecordedConv(nnx.Conv):
    recorder: _Recorder

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.recorder.record(inputs)
        return super().__call__(inputs, *args, **kwargs)


class _RecordedBatchNorm(nnx.BatchNorm):
    recorder: _Recorder

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.recorder.record(inputs)
        return super().__call__(inputs, *args, **kwargs)


_RECORDED = {nnx.Linear: _RecordedLinear, nnx.Conv: _RecordedConv, nnx.BatchNorm: _RecordedBatchNorm}


def record_inputs(model: Any, sample_input: Any) -> dict[str, list[Call]]:
    """Shapes and dtypes with which each linear layer, convolution and batch norm is called, without computing anything.

    Args:
      model: evaluated on a clone in eval mode, abstractly: no statistics, random streams or caches change.
      sample_input: the model's input, or a tuple of its positional inputs.

    Returns:
      Distinct inputs per path, none for a layer that is not called.
    """
    clone = nnx.clone(model, graph=True)
    clone.eval()
    recorders = {}
    for path, layer in modules_of(clone, tuple(_RECORDED)).items():
        if type(layer) in _RECORDED:
            recorders[path] = layer.recorder = _Recorder()
            # The clone is ours: a subclass in place records calls without touching the class the user knows.
            object.__setattr__(layer, "__class__", _RECORDED[type(layer)])
    inputs = sample_input if isinstance(sample_input, tuple) else (sample_input,)
    nnx.eval_shape(lambda module, *args: module(*args), clone, *inputs)
    return {path: recorder.calls for path, recorder in recorders.items()}


def predict_layers(dense: Any, sparse: Any, calls: list[Call]) -> tuple[float, float]:
    """Seconds of forward + backward of a dense layer and its sparse form by the cost model, summed over the inputs."""
    rank = len(getattr(dense, "kernel_size", ()))
    strides = per_axis("sparsify", "strides", getattr(dense, "strides", 1), rank)
    total = [0.0, 0.0]
    for call in calls:
        output = nnx.eval_shape(lambda layer, inputs: layer(inputs), dense, call)
        work = Work(sparse.pattern.shape, sparse.pattern.nse, call.shape, output.shape, max(strides, default=1) > 1)
        total = [t + seconds for t, seconds in zip(total, predict(work), strict=True)]
    return total[0], total[1]


def nominal_call(layer: Any) -> Call:
    """The input that the rule assumes for a dense layer where it knows none."""
    if not hasattr(layer, "kernel_size"):
        return Call((NOMINAL_TOKENS, layer.in_features), jnp.float32)
    dilations = per_axis("sparsify", "kernel_dilation", layer.kernel_dilation, len(layer.kernel_size))
    windows = [dilate(*axis) for axis in zip(layer.kernel_size, dilations, strict=True)]
    return Call((NOMINAL_IMAGES, *(max(NOMINAL_SIDE, 2 * w) for w in windows), layer.in_features), jnp.float32)


def time_layers(dense: Any, sparse: Any, calls: list[Call]) -> tuple[float, float]:
    """Seconds of forward + backward of a dense layer and its sparse form, summed over the inputs.

    Both are jitted, warmed up and run in turn; medians of ``ROUNDS`` runs. Each form gets its activations in
    the layout that it has between layers of its own kind (the sparse one batch-minor), so that a
    transposition at the edge of a sparse stretch is not charged to every layer in it.
    """
    total = [0.0, 0.0]
    for call in calls:
        steps = [compile_step(dense, call, batch_minor=False), compile_step(sparse, call, batch_minor=True)]
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
    """One forward and backward pass under ``jit``, and random operands for it.

    Args:
      layer: dense or sparse.
      call: shape and dtype of its input.
      batch_minor: whether the batch is the fastest axis of activations in memory, and features the slowest; else they
        are row-major.
    """
    graphdef, parameters, rest = nnx.split(layer, nnx.Param, ...)
    dtype = call.dtype if jnp.issubdtype(call.dtype, jnp.floating) else jnp.float32
    lead = len(call.shape) - 1 - len(getattr(layer, "kernel_size", ()))
    # As one batch axis, which both layers make of the leading axes: XLA would copy in order to merge them.
    x = jax.random.normal(jax.random.key(0), (math.prod(call.shape[:lead]), *call.shape[lead:]), dtype)
    rank = x.ndim
    order = (rank - 1, *range(1, rank - 1), 0) if batch_minor else tuple(range(rank))
    form = memory_format(order, x.sharding)

    def forward(rest: Any, parameters: Any, x: jax.Array) -> jax.Array:
        # The bias is added in this layout, as between layers: the format of a result does not reach elementwise work.
        return with_layout_constraint(nnx.merge(graphdef, parameters, rest)(x), form.layout)

    def step(rest: Any, parameters: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        y, pullback = jax.vjp(partial(forward, rest), parameters, x)
        return y, pullback(cotangent)

    output = jax.eval_shape(forward, rest, parameters, x)
    cotangent = jax.random.normal(jax.random.key(1), output.shape, output.dtype)
    x, cotangent = jax.device_put((x, cotangent), form)
    parameters, rest = jax.device_put((parameters, rest), x.sharding)
    return jax.jit(step, out_shardings=(form, (None, form))), (rest, parameters, x, cotangent)


def check_policy(policy: str, sample_input: Any) -> None:
    """Refuse an unknown policy, and "measured" without an input."""
    if policy not in ("measured", "rule", "always"):
        fail("sparsify", "policy", f"value {policy!r}", "'measured', 'rule' or 'always'")
    if policy == "measured" and sample_input is None:
        hint = "Or choose policy='rule' or 'always', which measure nothing."
        fail("sparsify", "sample_input", "no value", "an input of the model for policy 'measured'", hint)
