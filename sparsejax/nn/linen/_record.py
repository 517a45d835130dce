"""Which layers a Linen module calls, and with which inputs: an abstract run that an interceptor watches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax._typing import PyTree
from sparsejax.nn._record import Call, run_abstractly
from sparsejax.nn.linen._layers import SparseConv, SparseDense
from sparsejax.nn.linen._twin import Form, form_of, kind_of

Path = tuple[str, ...]

# They change the parameters of the layer that they hold before it runs, by the shape that these have.
_NORMALIZERS = (nn.SpectralNorm, nn.WeightNorm)


@dataclasses.dataclass
class CalledLayer:
    """A layer that has a sparse form.

    Attributes:
      name: its class.
      forms: the ways it was called, one unless an option comes with the call.
      calls: distinct shapes and dtypes of its input.
      inside: the class of a module that changes its parameters, or None.
    """

    name: str
    forms: list[Form]
    calls: list[Call]
    inside: str | None


@dataclasses.dataclass
class Record:
    """What an abstract run saw, by path.

    Attributes:
      layers: layers that have a sparse form.
      sparse: layers that are sparse already: `SparseDense`, `SparseConv`.
      holders: class of every module whose method ran.
      norms: batch norms, with their number of features.
    """

    layers: dict[Path, CalledLayer] = dataclasses.field(default_factory=lambda: {})
    sparse: dict[Path, nn.Module] = dataclasses.field(default_factory=lambda: {})
    holders: dict[Path, str] = dataclasses.field(default_factory=lambda: {})
    norms: dict[Path, int] = dataclasses.field(default_factory=lambda: {})
    normalizers: list[str] = dataclasses.field(default_factory=lambda: [])

    def intercept(self, next_fun: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
        """Write down a method that is about to run, and run it."""
        module, function = context.module, context.orig_method.func
        if module.scope is None:
            return next_fun(*args, **kwargs)
        self.holders.setdefault(module.path, type(module).__name__)
        if isinstance(module, nn.BatchNorm) and module.has_variable("batch_stats", "mean"):
            mean: Any = module.get_variable("batch_stats", "mean")
            self.norms[module.path] = int(mean.shape[-1])
        if isinstance(module, SparseDense | SparseConv):
            self.sparse[module.path] = module
        elif (kind := kind_of(function, module)) and module.has_variable("params", "kernel"):
            self._add(kind, module, args, kwargs)
        if not isinstance(module, _NORMALIZERS):
            return next_fun(*args, **kwargs)
        self.normalizers.append(type(module).__name__)
        try:
            return next_fun(*args, **kwargs)
        finally:
            self.normalizers.pop()

    def _add(self, kind: type[nn.Module], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs, einsum_str = call_arguments(args, kwargs)
        inside = self.normalizers[-1] if self.normalizers else None
        layer = self.layers.setdefault(module.path, CalledLayer(type(module).__name__, [], [], inside))
        form, call = form_of(kind, module, einsum_str), Call(jnp.shape(inputs), jnp.result_type(inputs))
        if not any(_same(form, other) for other in layer.forms):
            layer.forms.append(form)
        if call not in layer.calls:
            layer.calls.append(call)


def call_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, str | None]:
    """Return the input of a layer, and the einsum string that came with it, from the arguments of its ``__call__``."""
    named = dict(zip(("inputs", "einsum_str"), args, strict=False)) | dict(kwargs)
    return named["inputs"], named.get("einsum_str")


def record(function: str, module: nn.Module, variables: Mapping[str, Any], sample_input: PyTree) -> Record:
    """Run a module abstractly on an input and return what it calls.

    Args:
      function: whose name errors begin with.
      module: unbound.
      variables: its variables, all collections.
      sample_input: as ``sparsify`` takes it.

    Raises:
      ValueError: the module cannot be called with this input and these variables.
    """
    seen = Record()

    def run(variables: Any, *args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(seen.intercept):
            rngs = {"params": jax.random.key(0)}  # stands in for every stream that is not given
            return module.apply(variables, *args, rngs=rngs, mutable=nn.DenyList("params"), **kwargs)

    run_abstractly(function, run, type(module).__name__, dict(variables), sample_input)
    return seen


def _same(form: Form, other: Form) -> bool:
    """Whether two forms are one; options may be arrays, whose comparison is no truth value."""
    first, second = ((form.kind, form.kernel_shape, form.bias_shape, len(form.options)) for form in (form, other))
    return first == second and all(
        a is b or bool(jnp.array_equal(a, b)) if isinstance(a, jax.Array) else a == b
        for (_, a), (_, b) in zip(form.options, other.options, strict=True)
    )
