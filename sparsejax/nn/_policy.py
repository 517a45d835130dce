"""Which layers pay as sparse ones: by rule, or by measuring each in both forms."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import fail
from sparsejax.nn._graph import modules_of

# Sparsity from which a sparse layer is expected to be no slower than a dense one, forward and backward. A
# prior from the project's targets, not yet fitted to measurements; policy "measured" does not use it.
RULE_SPARSITY = {"Linear": 0.8, "Conv": 0.75}

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


_RECORDED = {nnx.Linear: _RecordedLinear, nnx.Conv: _RecordedConv}


def record_inputs(model: Any, sample_input: Any) -> dict[str, list[Call]]:
    """Shapes and dtypes with which each linear layer and convolution is called, without computing anything.

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


def time_layers(dense: Any, sparse: Any, calls: list[Call]) -> tuple[float, float]:
    """Milliseconds of forward + backward of a dense layer and its sparse form, summed over the inputs.

    Both are jitted, warmed up and run in turn; medians of ``ROUNDS`` runs. Each form gets its activations in
    the layout that it has between layers of its own kind (the sparse one batch-minor), so that a
    transposition at the edge of a sparse stretch is not charged to every layer in it.
    """
    total = [0.0, 0.0]
    for call in calls:
        steps = [_step(dense, call, batch_minor=False), _step(sparse, call, batch_minor=True)]
        times: list[list[float]] = [[], []]
        for step in steps:
            step()
        for _ in range(ROUNDS):
            for step, samples in zip(steps, times, strict=True):
                start = time.perf_counter()
                step()
                samples.append(time.perf_counter() - start)
        total = [t + 1e3 * statistics.median(samples) for t, samples in zip(total, times, strict=True)]
    return total[0], total[1]


def _step(layer: Any, call: Call, *, batch_minor: bool) -> Callable[[], Any]:
    """One forward and backward pass on random activations, compiled and blocking."""
    graphdef, parameters, rest = nnx.split(layer, nnx.Param, ...)
    dtype = call.dtype if jnp.issubdtype(call.dtype, jnp.floating) else jnp.float32
    lead = len(call.shape) - 1 - len(getattr(layer, "kernel_size", ())) if batch_minor else 0

    def to_logical(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, range(x.ndim - lead, x.ndim), range(lead))

    def to_memory(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, range(lead), range(x.ndim - lead, x.ndim))

    def forward(rest: Any, parameters: Any, x: jax.Array) -> jax.Array:
        return to_memory(nnx.merge(graphdef, parameters, rest)(to_logical(x)))

    @jax.jit
    def step(rest: Any, parameters: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        y, pullback = jax.vjp(partial(forward, rest), parameters, x)
        return y, pullback(cotangent)

    x = to_memory(jax.random.normal(jax.random.key(0), call.shape, dtype))
    output = jax.eval_shape(forward, rest, parameters, x)
    cotangent = jax.random.normal(jax.random.key(1), output.shape, output.dtype)
    return lambda: jax.block_until_ready(step(rest, parameters, x, cotangent))


def check_policy(policy: str, sample_input: Any) -> None:
    """Refuse an unknown policy, and "measured" without an input."""
    if policy not in ("measured", "rule", "always"):
        fail("sparsify", "policy", f"value {policy!r}", "'measured', 'rule' or 'always'")
    if policy == "measured" and sample_input is None:
        hint = "Or choose policy='rule' or 'always', which measure nothing."
        fail("sparsify", "sample_input", "no value", "an input of the model for policy 'measured'", hint)
