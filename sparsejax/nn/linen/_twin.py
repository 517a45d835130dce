"""The NNX layer of the same meaning as a Linen layer: through it Linen uses the sparse forms that NNX has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.linen.dtypes import promote_dtype as linen_promote_dtype
from flax.nnx.nn.dtypes import promote_dtype as nnx_promote_dtype

from sparsejax._checks import fail
from sparsejax._compat import is_traced

_HOOKS = (
    "dot_general",
    "dot_general_cls",
    "conv_general_dilated",
    "conv_general_dilated_cls",
    "preferred_element_type",
)
_SHARED = ("param_dtype", "dtype", "precision")


class Form(NamedTuple):
    """What a Linen layer was called as: two calls of equal form have one sparse layer.

    Attributes:
      kind: the layer's class in ``flax.linen``.
      options: its fields, by name, sorted.
      kernel_shape: of one layer, also where a stack of them is scanned.
      bias_shape: the same of the bias; None if there is none.
    """

    kind: type[nn.Module]
    options: tuple[tuple[str, Any], ...]
    kernel_shape: tuple[int, ...]
    bias_shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class _Promote:
    """A Linen ``promote_dtype`` hook in the form that NNX calls."""

    function: Callable[..., Any]

    def __call__(self, args: tuple[Any, ...], /, *, dtype: Any = None) -> Any:
        return self.function(*args, dtype=dtype)


def kind_of(function: Any, module: nn.Module) -> type[nn.Module] | None:
    """Return the class of Linen layer whose own ``__call__`` is about to run, or None.

    Subclasses that call ``super().__call__``, and classes made by ``nn.vmap``, ``nn.scan`` or ``nn.remat``, get there
    with the variables of one layer.
    """
    return next((kind for kind in _TWINS if function is _wrapped_call(kind) and isinstance(module, kind)), None)


def form_of(kind: type[nn.Module], module: nn.Module, einsum_str: str | None) -> Form:
    """Return the form of a layer that runs; its variables are those of one layer."""
    names = [field.name for field in dataclasses.fields(kind) if field.name not in ("parent", "name")]
    options = {name: getattr(module, name) for name in names if not name.endswith("_init")}
    if einsum_str is not None:
        options["einsum_str"] = einsum_str
    kernel, bias = (nn.meta.unbox(module.get_variable("params", name)) for name in ("kernel", "bias"))
    return Form(kind, tuple(sorted(options.items())), tuple(kernel.shape), None if bias is None else tuple(bias.shape))


def twin(form: Form, kernel: jax.Array, bias: jax.Array | None) -> Any:
    """Return the NNX layer with the form's options and these parameters; stacked if they are.

    Raises:
      ValueError: an option that NNX does not have.
    """
    options = dict(form.options)
    for name in _HOOKS:
        if options.get(name) is not None:
            rule = "None; sparse kernels have no such hook"
            fail(f"linen.{form.kind.__name__}", name, f"value {options[name]!r}", rule)
    if is_traced(options.get("mask")):
        rule = "a NumPy array, or a field of the module around it"
        fail(f"linen.{form.kind.__name__}", "mask", "an array that is computed in each call", rule)
    shared = {name: options[name] for name in _SHARED}
    promote = options["promote_dtype"]
    shared["promote_dtype"] = nnx_promote_dtype if promote is linen_promote_dtype else _Promote(promote)
    layer: Any = nnx.eval_shape(lambda: _TWINS[form.kind](form, options, shared | {"rngs": nnx.Rngs(0)}))
    if options.get("mask") is not None:
        layer.mask = np.asarray(options["mask"])
    layer.kernel = nnx.Param(kernel)
    layer.bias = nnx.data(None) if bias is None else nnx.Param(bias)
    return layer


def _wrapped_call(kind: Any) -> Any:
    """The function that a class's ``__call__`` wraps, as interceptors see it."""
    return kind.__call__.__wrapped__


def _linear(form: Form, options: Mapping[str, Any], shared: dict[str, Any]) -> nnx.Module:
    return nnx.Linear(*form.kernel_shape, use_bias=form.bias_shape is not None, **shared)


def _linear_general(form: Form, options: Mapping[str, Any], shared: dict[str, Any]) -> nnx.Module:
    if options["batch_dims"] not in ((), []):
        rule = "none; a kernel for each batch index has no sparse form"
        fail("linen.DenseGeneral", "batch_dims", f"value {options['batch_dims']}", rule)
    axis = options["axis"]
    axis = (axis,) if isinstance(axis, int) else tuple(axis)
    sizes = form.kernel_shape[: len(axis)], form.kernel_shape[len(axis) :]
    return nnx.LinearGeneral(*sizes, axis=axis, use_bias=form.bias_shape is not None, **shared)


def _einsum(form: Form, options: Mapping[str, Any], shared: dict[str, Any]) -> nnx.Module:
    return nnx.Einsum(options["einsum_str"].replace(" ", ""), form.kernel_shape, form.bias_shape, **shared)


def _conv(form: Form, options: Mapping[str, Any], shared: dict[str, Any]) -> nnx.Module:
    groups, *_, inputs, outputs = (options["feature_group_count"], *form.kernel_shape)
    steps = {name: options[name] or 1 for name in ("strides", "input_dilation", "kernel_dilation")}
    return nnx.Conv(
        inputs * groups,
        outputs,
        options["kernel_size"],
        padding=options["padding"],
        feature_group_count=groups,
        use_bias=form.bias_shape is not None,
        mask=options["mask"],
        **steps,
        **shared,
    )


def _conv_transpose(form: Form, options: Mapping[str, Any], shared: dict[str, Any]) -> nnx.Module:
    transposed = options["transpose_kernel"]
    *_, inputs, outputs = (*form.kernel_shape[:-2], *form.kernel_shape[-2:][:: -1 if transposed else 1])
    names = ("kernel_size", "strides", "padding", "kernel_dilation", "mask", "transpose_kernel")
    chosen = {name: options[name] for name in names}
    return nnx.ConvTranspose(inputs, outputs, use_bias=form.bias_shape is not None, **chosen, **shared)


_TWINS: dict[type[nn.Module], Callable[[Form, Mapping[str, Any], dict[str, Any]], nnx.Module]] = {
    nn.Dense: _linear,
    nn.DenseGeneral: _linear_general,
    nn.Einsum: _einsum,
    nn.Conv: _conv,
    nn.ConvTranspose: _conv_transpose,
}
