"""How much less time a step of the whole model takes after ``sparsify``: both models timed on the sample input."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._typing import PyTree
from sparsejax.nn._record import split_arguments

Step: TypeAlias = tuple[Any, tuple[Any, ...]]
ROUNDS = 5  # timed steps of each model, alternately; the median counts


def time_models(dense: nnx.Module, sparse: nnx.Module, sample_input: PyTree) -> tuple[float, float]:
    """Measure the seconds of forward pass and gradients of all parameters, in eval mode, of two models.

    The loss is the mean of the squares of all floating outputs; an optimizer's time is not in it.

    Args:
      dense, sparse: the models; not changed.
      sample_input: as of ``sparsify``. Floating inputs that are shapes only become random numbers, others zeros.

    Returns:
      The medians for the dense and the sparse model.
    """
    first, second = (_step(model, sample_input) for model in (dense, sparse))
    return alternate(first, second)


def alternate(dense: Step, sparse: Step) -> tuple[float, float]:
    """Return the median seconds of two compiled functions with their operands, run in turn."""
    steps = (dense, sparse)
    for step, operands in steps:
        jax.block_until_ready(step(*operands))
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for (step, operands), samples in zip(steps, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(step(*operands))
            samples.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def concrete_arguments(
    sample_input: PyTree,
) -> tuple[dict[str, jax.Array], Callable[[dict[str, jax.Array]], tuple[Any, Any]]]:
    """Return what ``split_arguments`` does, with numbers in the place of shapes."""
    arrays, rebuild = split_arguments(sample_input)
    return {name: _concrete(leaf) for name, leaf in arrays.items()}, rebuild


def mean_square(outputs: Any) -> jax.Array:
    """Return the mean of the squares of all floating outputs, a loss that needs no labels."""
    floating = [y for y in jax.tree.leaves(outputs) if jnp.issubdtype(y.dtype, jnp.floating)]
    return sum((jnp.square(y).mean() for y in floating), jnp.zeros(()))


def _step(model: nnx.Module, sample_input: PyTree) -> Step:
    """A compiled step and its operands."""
    model = nnx.clone(model, graph=True)
    model.eval()
    graph, params, rest = nnx.split(model, nnx.All(nnx.Param, _is_floating), ..., graph=True)
    arrays, arguments = concrete_arguments(sample_input)

    def loss(params: Any, rest: Any, arrays: dict[str, jax.Array]) -> jax.Array:
        positional, named = arguments(arrays)
        module: Any = nnx.merge(graph, params, rest)
        return mean_square(module(*positional, **named))

    # Arrays, not Variables: those of ``rest`` would belong to another trace than the parameters'.
    return jax.jit(jax.value_and_grad(loss)), (nnx.as_pure(params), nnx.as_pure(rest), arrays)


def _is_floating(path: Any, variable: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(variable[...]), jnp.floating)


def _concrete(leaf: Any) -> jax.Array:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return jax.random.normal(jax.random.key(0), leaf.shape, leaf.dtype)
    return jnp.zeros(leaf.shape, leaf.dtype)
