"""One step of training, and testing."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparsejax.data import ArrayImageSplit, ImageSplit, read_ahead

# Examples per call in testing: bounds the memory of the activations.
_TEST_BATCH = 500


@nnx.jit
def train_step(model: nnx.Module, optimizer: nnx.Optimizer[Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Take one optimizer step on the mean cross-entropy, in place, and return the loss before it.

    Args:
      model: classifier, images -> logits.
      optimizer: of the model.
      images: float[B, H, W, C].
      labels: int[B].

    Returns:
      Mean cross-entropy before the update, nats, float32 scalar.
    """
    loss, grads = _loss_and_grads(model, images, labels)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def stored_step(model: nnx.Module, optimizer: nnx.Optimizer[Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """``train_step`` on stored weights with an optimizer that prunes, in a step that does not change the mask."""
    loss, grads = _loss_and_grads(model, images, labels)
    optimizer.update(model, grads, refresh=False)
    return loss


def _loss_and_grads(model: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
    return nnx.value_and_grad(lambda model: loss_of_kind(model, images, labels, _PLAIN))(model)


@dataclass(frozen=True)
class StepKind:
    """What a training step does in addition to the mean cross-entropy of all parameters in float32.

    Attributes:
      label_smoothing: part of the target that is spread over all classes.
      precision: of forward and backward passes, "float32" or "bfloat16".
      head: path of the classifier where it alone is trained, on a network in inference mode; None trains all.
    """

    label_smoothing: float = 0.0
    precision: str = "float32"
    head: str | None = None

    @property
    def trained(self) -> Any:
        """The NNX filter of the variables that are trained."""
        if self.head is None:
            return nnx.Param
        parts = tuple(self.head.split("/"))
        return nnx.All(nnx.Param, lambda path, _: tuple(map(str, path))[: len(parts)] == parts)


_PLAIN = StepKind()


@functools.cache
def step_of_kind(kind: StepKind, *, is_stored: bool = False) -> Callable[..., jax.Array]:
    """Return the step function of a kind, one function for all models; `train_step` or `stored_step` for the plain one.

    Args:
      kind: of the step.
      is_stored: leave out the part of a pruning optimizer that changes the mask.

    Source: label smoothing as Szegedy et al. 2016, "Rethinking the Inception architecture", section 7; bfloat16 with
    float32 weights as Micikevicius et al. 2018, "Mixed precision training", section 3.1, without loss scaling, which
    bfloat16 does not need.
    """
    if kind == _PLAIN:
        return stored_step if is_stored else train_step
    options = {"refresh": False} if is_stored else {}

    @nnx.jit
    def step(model: nnx.Module, optimizer: nnx.Optimizer[Any], images: jax.Array, labels: jax.Array) -> jax.Array:
        differentiate = nnx.value_and_grad(
            lambda model: loss_of_kind(model, images, labels, kind), argnums=nnx.DiffState(0, kind.trained)
        )
        loss, grads = differentiate(model)
        optimizer.update(model, grads, **options)
        return loss

    return step


@functools.cache
def forward_of_kind(kind: StepKind) -> Callable[..., jax.Array]:
    """Return the forward pass of a step as a function of graph, state, images and labels; it changes no variable."""

    @jax.jit
    def forward(graphdef: Any, state: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        return loss_of_kind(nnx.merge(graphdef, state), images, labels, kind)

    return forward


def loss_of_kind(model: Any, images: jax.Array, labels: jax.Array, kind: StepKind) -> jax.Array:
    """Return the mean cross-entropy of a step, nats; it changes the batch statistics of the model."""
    logits = _half_precision(model, images) if kind.precision == "bfloat16" else model(images)
    if not kind.label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), kind.label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def _half_precision(model: Any, images: jax.Array) -> jax.Array:
    """Return float32 logits of a forward pass in bfloat16; batch statistics stay float32."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    half = nnx.merge(graphdef, jax.tree.map(_to_half, params), rest)
    for _, module in nnx.iter_modules(half):
        if isinstance(module, nnx.BatchNorm):  # else its float32 statistics would raise the precision of what follows
            module.dtype = jnp.bfloat16
    logits = half(_to_half(images)).astype(jnp.float32)
    new = nnx.state(half, nnx.Not(nnx.Param))
    nnx.update(model, jax.tree.map(lambda value, old: value.astype(old.dtype), new, rest))
    return logits


def _to_half(array: jax.Array) -> jax.Array:
    return array.astype(jnp.bfloat16) if array.dtype == jnp.float32 else array


BoundStep = Callable[[Any, Any], jax.Array]


def bind_step(
    model: nnx.Module, optimizer: nnx.Optimizer[Any], step: Callable[..., jax.Array] = train_step
) -> BoundStep:
    """Return the training step of one model, which walks the module graph once instead of on every call.

    Args:
      model: updated in place by each step.
      optimizer: of this model, updated in place too.
      step: `train_step`, or another function of (model, optimizer, images, labels) under ``nnx.jit``.

    Returns:
      A function of (images, labels), float[B, H, W, C] and int[B], that takes a step and returns the loss before it.

    >>> from sparsejax.models import MLP
    >>> model = MLP(4, 2, rngs=nnx.Rngs(0))
    >>> step = bind_step(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param))
    >>> step(np.ones((3, 4), np.float32), np.array([0, 1, 1])).shape
    ()
    """
    return nnx.cached_partial(step, model, optimizer)


def map_batches(
    function: Callable[[jax.Array], Any],
    read: Callable[[np.ndarray], np.ndarray],
    count: int,
    batch_size: int,
    *,
    threads: int = 0,
) -> Iterator[np.ndarray]:
    """Apply a function to batches of one shape, so that it is compiled once.

    The last batch is padded with zeros; the results of the padding are dropped.

    Args:
      function: of a batch, array[batch_size, ...]; returns an array with one entry per example.
      read: returns the examples with these row numbers, int[n] -> array[n, ...].
      count: examples in all.
      batch_size: examples per call; ``count`` if that is less.
      threads: that read batches ahead; see `sparsejax.data.read_ahead`.

    Yields:
      The results of each batch, on the host.

    >>> [part.tolist() for part in map_batches(lambda x: x + 1, lambda rows: 10 * rows, 3, 2)]
    [[1, 11], [21]]
    """
    size = min(batch_size, count) or 1

    def batch(number: int) -> tuple[int, np.ndarray]:
        chunk = read(np.arange(number * size, min((number + 1) * size, count)))
        padding = np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)
        return len(chunk), np.concatenate([chunk, padding])

    for filled, chunk in read_ahead(batch, 0, -(-count // size), threads=threads):
        yield np.asarray(function(jnp.asarray(chunk)))[:filled]


@nnx.jit
def _predict(model: Any, images: jax.Array) -> jax.Array:
    return jnp.argmax(model(images), axis=-1)


def evaluate_accuracy(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of examples classified correctly, with running batch statistics.

    Args:
      model: classifier; it is left in the mode it is in.
      images: float[N, H, W, C].
      labels: int[N].

    Returns:
      A fraction in [0, 1].

    >>> from sparsejax.models import MLP
    >>> evaluate_accuracy(MLP(4, 1, rngs=nnx.Rngs(0)), np.ones((3, 2, 2, 1), np.float32), np.zeros(3, np.int32))
    1.0
    """
    split = ArrayImageSplit(np.asarray(images, np.float32), np.asarray(labels, np.int32))
    return split_accuracy(model, split)


def split_accuracy(model: nnx.Module, split: ImageSplit, *, threads: int = 0) -> float:
    """Return the fraction of a split's examples classified correctly, with running batch statistics.

    Args:
      model: classifier; it is left in the mode it is in.
      split: images and labels.
      threads: that read pictures ahead.
    """
    return float((predictions(model, split, threads=threads) == split.labels).mean())


def predictions(model: nnx.Module, split: ImageSplit, *, threads: int = 0) -> np.ndarray:
    """Return the classes int[N] that a classifier predicts with running batch statistics; see `split_accuracy`."""
    with inference_mode(model):
        parts = map_batches(lambda x: _predict(model, x), split.images, len(split), _TEST_BATCH, threads=threads)
        return np.concatenate(list(parts))


def predict_classes(model: nnx.Module, images: Any) -> np.ndarray:
    """Return the classes int[n] that a classifier predicts for one batch, with running batch statistics."""
    with inference_mode(model):
        return np.asarray(_predict(model, jnp.asarray(images)))


@contextlib.contextmanager
def inference_mode(model: nnx.Module) -> Generator[None]:
    """Use running batch statistics and no dropout inside the block; every module is then in the mode it was in."""
    names = ("use_running_average", "deterministic")
    modules = [(module, name) for _, module in nnx.iter_modules(model) for name in names if hasattr(module, name)]
    before = [getattr(module, name) for module, name in modules]
    model.eval()
    try:
        yield
    finally:
        for (module, name), value in zip(modules, before, strict=True):
            setattr(module, name, value)
