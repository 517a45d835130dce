"""How much less time a step of a whole Linen module takes after ``sparsify``; see ``sparsejax.nn._model_time``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from sparsejax._typing import PyTree
from sparsejax.nn._model_time import Step, alternate, concrete_arguments, mean_square

Form = tuple[nn.Module, Mapping[str, Any]]


def time_modules(dense: Form, sparse: Form, sample_input: PyTree) -> tuple[float, float]:
    """Measure the seconds of forward pass and gradients of all parameters of two modules with their variables.

    Args:
      dense, sparse: module and variables; not changed.
      sample_input: as of ``sparsify``, options such as ``train`` among it.

    Returns:
      The medians for the dense and the sparse module.
    """
    return alternate(_step(*dense, sample_input), _step(*sparse, sample_input))


def _step(module: nn.Module, variables: Mapping[str, Any], sample_input: PyTree) -> Step:
    arrays, arguments = concrete_arguments(sample_input)
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    rngs = {"params": jax.random.key(0)}  # stands in for every stream that is not given

    def loss(params: Any, rest: Any, arrays: dict[str, jax.Array]) -> jax.Array:
        positional, named = arguments(arrays)
        collections = {**rest, "params": params}
        out, _ = module.apply(collections, *positional, rngs=rngs, mutable=nn.DenyList("params"), **named)
        return mean_square(out)

    return jax.jit(jax.value_and_grad(loss, allow_int=True)), (nn.meta.unbox(variables["params"]), rest, arrays)
