"""The classifier of a network: find it, remove it, replace it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from flax import nnx

from sparsejax._checks import fail, message

M = TypeVar("M", bound=nnx.Module)

_USUAL_NAMES = ("fc", "head", "classifier")


class Identity(nnx.Module):
    """A module that returns its input."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``x``."""
        return x


def find_head(model: nnx.Module) -> str:
    """Return the path of the classifier: the linear layer called ``fc``, ``head`` or ``classifier``.

    Args:
      model: NNX module, dense or sparse.

    Raises:
      ValueError: no linear layer has one of these names; the message lists the linear layers.

    >>> from sparsejax.models import MLP
    >>> find_head(MLP(4, 2, rngs=nnx.Rngs(0)))
    'fc'
    """
    for name in _USUAL_NAMES:
        if _is_linear(getattr(model, name, None)):
            return name
    got = f"no classifier with a usual name (linear layers: {_linear_paths(model)})"
    fail("find_head", "model", got, "a linear layer called " + ", ".join(_USUAL_NAMES), "Pass head=PATH.")


def body_kernels(model: nnx.Module) -> Callable[[str, Any], bool]:
    """Return the filter of the kernels that pruning usually takes: all but those of embeddings and classifiers.

    Args:
      model: NNX module, dense. What stays dense is what its class names in ``dense_parts`` (in our transformers the
        map of patches, the pooler, the classifier), else the classifier (see `find_head`).

    Returns:
      A function of (path, leaf), as the arguments ``where`` of `sparsejax.pruning` take one.

    Raises:
      ValueError: the class has no ``dense_parts``, and the classifier no usual name.

    >>> from sparsejax.models import MLP
    >>> where = body_kernels(MLP(4, 2, hidden=(3,), rngs=nnx.Rngs(0)))
    >>> where("layers/0/kernel", jax.numpy.ones((4, 3))), where("fc/kernel", jax.numpy.ones((3, 2)))
    (True, False)
    """
    declared: tuple[str, ...] | None = getattr(model, "dense_parts", None)
    parts = (find_head(model),) if declared is None else declared

    def body(path: str, leaf: Any) -> bool:
        inside = any(path.startswith(f"{part}/") for part in parts)
        return path.split("/")[-1] == "kernel" and jax.numpy.ndim(leaf) >= 2 and not inside

    return body


def without_head(model: M, head: str | None = None) -> M:
    """Return a copy whose classifier is the identity: the network then maps images to features.

    Args:
      model: NNX module. It is not changed.
      head: path of the classifier, such as "fc"; by its usual name if None; "" for a network that has none.

    Raises:
      ValueError: no such module.

    >>> from sparsejax.models import MLP
    >>> without_head(MLP(4, 2, hidden=(3,), rngs=nnx.Rngs(0)))(jax.numpy.ones((1, 4))).shape
    (1, 3)
    """
    return _replaced("without_head", model, head, lambda _: Identity())


def with_new_head(model: M, num_classes: int, *, head: str | None = None, rngs: nnx.Rngs) -> M:
    """Return a copy with a new, dense classifier: weights and biases uniform in +-1 / sqrt(inputs).

    Args:
      model: NNX module. It is not changed.
      num_classes: outputs of the new classifier.
      head: path of the classifier; by its usual name if None.
      rngs: random streams for initialisation.

    Raises:
      ValueError: no such module, or one that is not linear.

    Source: PyTorch's default for linear layers, which Iofinova et al. 2022 use for the new classifier.

    >>> from sparsejax.models import MLP
    >>> with_new_head(MLP(4, 2, rngs=nnx.Rngs(0)), 7, rngs=nnx.Rngs(1))(jax.numpy.ones((1, 4))).shape
    (1, 7)
    """

    def new(old: Any) -> nnx.Module:
        if not _is_linear(old):
            fail("with_new_head", f"head {head!r}", f"type {type(old).__name__}", "a linear layer")
        return new_classifier(old.in_features, num_classes, rngs)

    return _replaced("with_new_head", model, head, new)


def new_classifier(in_features: int, num_classes: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Return a linear layer with weights and biases uniform in +-1 / sqrt(in_features)."""
    bound = 1 / math.sqrt(in_features)

    def uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jax.numpy.float32, *_: Any) -> jax.Array:
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)

    return nnx.Linear(in_features, num_classes, kernel_init=uniform, bias_init=uniform, rngs=rngs)


def _replaced(function: str, model: M, head: str | None, new: Callable[[Any], nnx.Module]) -> M:
    copy = nnx.clone(model, graph=True)
    if head == "":
        return copy
    *parents, last = (find_head(model) if head is None else head).split("/")
    node: Any = copy
    try:
        for name in parents:
            node = _child(node, name)
        old = _child(node, last)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        rule = f"the path of a module, such as {_linear_paths(copy)}"
        raise ValueError(message(function, "head", f"value {head!r}", rule)) from error
    if isinstance(node, nnx.List):
        node[int(last)] = new(old)
    else:
        setattr(node, last, new(old))
    return copy


def _child(node: Any, name: str) -> Any:
    return node[int(name)] if isinstance(node, nnx.List) else getattr(node, name)


def _linear_paths(model: nnx.Module) -> list[str]:
    return ["/".join(map(str, path)) for path, node in nnx.iter_modules(model) if _is_linear(node)]


def _is_linear(node: object) -> bool:
    """Tell whether a module is a linear layer, dense or sparse; a convolution also has ``kernel_size``."""
    return isinstance(node, nnx.Module) and hasattr(node, "out_features") and not hasattr(node, "kernel_size")
