"""Many pruning runs as one program: sparsities x seeds are lanes by ``jax.vmap``.

Masks change only in the last step of an epoch. The steps between decide nothing, so all methods that keep pruned
weights at zero share one compiled program for them. Used by ``pruning_digits.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from noisy_digits import TEST_DRAWS, Data, Design, Net

from sparsejax import pruning


class Contender(NamedTuple):
    """A way to make the network sparse.

    Attributes:
      make: design, sparsity, seed -> method. It is called inside compiled programs, where the seed is a traced number:
        every lane draws its own masks.
      scores: loss on the first batch, parameters -> scores of a mask at initialisation; None where there is none.
      stored: whether parameters are stored that the forward pass does not use.
    """

    make: Callable[[Design, float, Any], pruning.Method]
    scores: Callable[[Callable[[Any], jax.Array], Any], Any] | None = None
    stored: bool = False


class Lane(NamedTuple):
    """One run: parameters, batch statistics, optimizer state; in the programs with leading axes [levels, seeds]."""

    params: Any
    stats: Any
    state: Any


def _loss(params: Any, stats: Any, batch: Any) -> tuple[jax.Array, Any]:
    images, labels = batch
    logits, changed = Net().apply({"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed["batch_stats"]


def _gradients(stored: bool, lane: Lane, batch: Any) -> tuple[Any, Any]:
    """Return the gradients of a batch, and the new batch statistics."""

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        used = pruning.forward_params(params, lane.state) if stored else params
        return _loss(used, lane.stats, batch)

    return jax.grad(loss_of, has_aux=True)(lane.params)


def _updated(tx: Any, refresh: bool, lane: Lane, grads: Any, stats: Any) -> Lane:
    """Make an optimizer step; nothing here knows a method."""
    updates, state = tx.update(grads, lane.state, lane.params, refresh=refresh)
    return Lane(optax.apply_updates(lane.params, updates), stats, state)


@functools.partial(jax.jit, static_argnums=(0, 1))
def steps(tx: Any, stored: bool, lanes: Lane, batches: Any, begin: int, end: int) -> Lane:
    """Make steps in which no mask changes, on some of the batches [seeds, steps, 64, ...], which the levels share."""

    def run(lane: Lane, batches: Any) -> Lane:
        def step(i: jax.Array, lane: Lane) -> Lane:
            return _updated(tx, False, lane, *_gradients(stored, lane, jax.tree.map(lambda each: each[i], batches)))

        return jax.lax.fori_loop(begin, end, step, lane)

    return jax.vmap(jax.vmap(run), in_axes=(0, None))(lanes, batches)


@functools.partial(jax.jit, static_argnums=0)
def batch_gradients(stored: bool, lanes: Lane, batch: Any) -> tuple[Any, Any]:
    """Return the gradients of every lane on one batch, and the new batch statistics."""
    return jax.vmap(jax.vmap(functools.partial(_gradients, stored)), in_axes=(0, None))(lanes, batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def changing_step(contender: Contender, design: Design, lanes: Lane, grads: Any, stats: Any) -> Lane:
    """Make the step that ends with a change of the masks; counts are static, so each level is traced by itself."""

    def update(sparsity: float, seed: jax.Array, *step: Any) -> Lane:
        tx = pruning.pruned(design.inner(), contender.make(design, sparsity, seed))
        return _updated(tx, True, *step)

    seeds, step = jnp.arange(design.seeds), (lanes, grads, stats)
    levels = [
        jax.vmap(functools.partial(update, sparsity))(seeds, *jax.tree.map(lambda leaf, i=i: leaf[i], step))
        for i, sparsity in enumerate(design.levels)
    ]
    return _stacked(levels)


@functools.partial(jax.jit, static_argnums=(0, 1))
def start(contender: Contender, design: Design, params: Any, stats: Any, batch: Any) -> Lane:
    """Start all lanes; those of one seed from the same weights."""

    def start(sparsity: float, seed: jax.Array, params: Any, stats: Any, batch: Any) -> Lane:
        tx = pruning.pruned(design.inner(), contender.make(design, sparsity, seed))
        initial = params
        params, state = (params, tx.init(params)) if contender.stored else pruning.init(tx, params)
        if contender.scores is not None:
            scores = contender.scores(lambda params: _loss(params, stats, batch)[0], initial)
            params, state = pruning.prune(tx, params, state, pruning.mask_from_scores(scores, sparsity))
        return Lane(params, stats, state)

    arguments = (jnp.arange(design.seeds), params, stats, batch)
    return _stacked([jax.vmap(functools.partial(start, sparsity))(*arguments) for sparsity in design.levels])


def _stacked(levels: Sequence[Lane]) -> Lane:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *levels)


@functools.partial(jax.jit, static_argnums=0)
def _correct(stored: bool, lanes: Lane, images: jax.Array, labels: jax.Array) -> jax.Array:
    def accuracy(lane: Lane) -> jax.Array:
        used = pruning.forward_params(lane.params, lane.state) if stored else lane.params
        logits = Net().apply({"params": used, "batch_stats": lane.stats}, images, False)
        return (logits.argmax(-1) == labels).mean()

    return jax.vmap(jax.vmap(accuracy))(lanes)


def accuracy(stored: bool, lanes: Lane, data: Data, draws: int = TEST_DRAWS) -> np.ndarray:
    """Return the accuracy of every lane on the first draws of the test images, [levels, seeds]."""
    count = len(data.test) // TEST_DRAWS
    parts = [slice(i * count, (i + 1) * count) for i in range(draws)]
    return np.mean([_correct(stored, lanes, data.test[part], data.test_labels[part]) for part in parts], axis=0)


@functools.partial(jax.jit, static_argnums=0)
def nonzero(stored: bool, lanes: Lane) -> dict[str, jax.Array]:
    """Return the number of weights other than 0 in every prunable layer, [levels, seeds]."""

    def count(lane: Lane) -> dict[str, jax.Array]:
        used = pruning.forward_params(lane.params, lane.state) if stored else lane.params
        return {f"{name}/kernel": jnp.sum(layer["kernel"] != 0) for name, layer in used.items() if "kernel" in layer}

    return jax.vmap(jax.vmap(count))(lanes)


@jax.jit
@jax.vmap
@jax.vmap
def overlap(first: Any, second: Any) -> pruning.Overlap:
    """Compare two masks of every lane."""
    return pruning.overlap(first, second)[0]
