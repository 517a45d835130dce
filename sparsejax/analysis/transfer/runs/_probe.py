"""Linear classifiers on features: the study's SGD, and exact logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax.analysis._arrays import read_number
from sparsejax.analysis.transfer._metrics import per_class_accuracy, top1_accuracy
from sparsejax.analysis.transfer.runs._config import SGDConfig
from sparsejax.analysis.transfer.runs._features import Features

Solver = Literal["sgd", "lbfgs"]

# Inverse strengths of L2 to choose from: 45 values, as Kornblith et al. 2019.
C_GRID = np.logspace(-6, 5, 45)
_VALIDATION_SHARE = 5
_MAX_ITER = 1000


@dataclass(frozen=True)
class ProbeResult:
    """A linear classifier on features.

    Attributes:
      weights: float32[F, K], of the features as passed (standardisation is folded in).
      bias: float32[K].
      top1: accuracy on the test split.
      mean_per_class: mean over classes that have test examples.
      per_class: float64[K], NaN for classes without test examples.
      seed: of the run.
      C: inverse strength of L2 of "lbfgs"; None for "sgd".
      history: (mean loss over the epoch, top-1 on the test split) for each epoch of "sgd".
    """

    weights: np.ndarray
    bias: np.ndarray
    top1: float
    mean_per_class: float
    per_class: np.ndarray
    seed: int
    C: float | None = None
    history: np.ndarray | None = None


def linear_probe(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    solver: Solver = "sgd",
    seeds: Sequence[int] = (0,),
    standardize: bool = False,
    config: SGDConfig | None = None,
    C: float | None = 1.0,
    val: Features | None = None,
) -> tuple[ProbeResult, ...]:
    """Train a linear classifier on fixed features, once for each seed.

    "sgd" minimises the mean cross-entropy by the study's settings; the initial weights and the order of examples depend
    on the seed; all seeds run as one batched computation. "lbfgs" minimises C * (sum of cross-entropies) + |W|^2 / 2 to
    convergence: no order, no initial value, so the seed matters only where C is chosen.

    Args:
      train, test: features of the splits.
      num_classes: K.
      solver: "sgd" or "lbfgs".
      seeds: one run for each.
      standardize: shift and scale features to zero mean and unit deviation on the training split, which the study does
        not do. It changes what SGD reaches, and conclusions with it.
      config: settings of "sgd"; the study's if None.
      C: of "lbfgs", as in scikit-learn; None: the best of 45 values from 1e-6 to 1e5 on ``val``, or on a fifth of the
        training split if there is none; then fitted on both.
      val: to choose C.

    Returns:
      `ProbeResult` for each seed.

    Raises:
      ValueError: features of different width, classes outside [0, K), an unknown solver, or a training split without
        two classes for "lbfgs".
      ImportError: scikit-learn is missing, for "lbfgs".

    Source: Iofinova et al. 2022, linear fine-tuning; Kornblith, Shlens & Le 2019, logistic regression by L-BFGS.

    >>> x = np.array([[-1.0], [1.0]], np.float32)
    >>> both = Features(x, np.array([0, 1], np.int32))
    >>> linear_probe(both, both, num_classes=2, config=SGDConfig(epochs=5, learning_rate=1.0))[0].top1
    1.0
    """
    _check(train, test, val, num_classes)
    C = None if C is None else read_number("linear_probe", "C", C, 0)
    if solver not in ("sgd", "lbfgs"):
        fail("linear_probe", "solver", f"value {solver!r}", "'sgd' or 'lbfgs'")
    shift, scale = _statistics(train.x, standardize)
    scaled = [None if part is None else Features((part.x - shift) / scale, part.y) for part in (train, test, val)]
    assert scaled[0] is not None and scaled[1] is not None
    if solver == "sgd":
        fitted = _fit_sgd(scaled[0], scaled[1], num_classes, seeds, config or SGDConfig.linear())
    else:
        fitted = _fit_lbfgs(scaled[0], scaled[2], num_classes, seeds, C)
    results = []
    for seed, (weights, bias, c, history) in zip(seeds, fitted, strict=True):
        predicted = np.argmax(scaled[1].x @ weights + bias, axis=1)
        per_class = per_class_accuracy(test.y, predicted, num_classes)
        weights = weights / scale[:, None]
        mean = float(np.nanmean(per_class))
        top1 = top1_accuracy(test.y, predicted)
        results.append(ProbeResult(weights, bias - shift @ weights, top1, mean, per_class, seed, c, history))
    return tuple(results)


def initial_head(seed: int, features: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [F, K] and biases [K], uniform in +-1 / sqrt(F)."""
    rng, bound = np.random.default_rng((seed, 0)), 1 / np.sqrt(features)
    draw = partial(rng.uniform, -bound, bound)
    return draw((features, num_classes)).astype(np.float32), draw(num_classes).astype(np.float32)


def epoch_order(seed: int, epoch: int, count: int, batch_size: int) -> np.ndarray:
    """Return the examples of each step, int32[steps, batch]; -1 fills the last, smaller batch."""
    order = np.random.default_rng((seed, 1, epoch)).permutation(count)
    filled = np.full(-(-count // batch_size) * batch_size, -1, np.int32)
    filled[:count] = order
    return filled.reshape(-1, batch_size)


def _fit_sgd(
    train: Features, test: Features, num_classes: int, seeds: Sequence[int], config: SGDConfig
) -> list[tuple[np.ndarray, np.ndarray, None, np.ndarray]]:
    heads = [initial_head(seed, train.x.shape[1], num_classes) for seed in seeds]
    weights = tuple(jnp.asarray(np.stack(part)) for part in zip(*heads, strict=True))
    state = weights, jax.tree.map(jnp.zeros_like, weights)
    data = tuple(map(jnp.asarray, (train.x, train.y, test.x, test.y)))
    batch, history = min(config.batch_size, len(train.y)), []
    for epoch in range(config.epochs):
        orders = np.stack([epoch_order(seed, epoch, len(train.y), batch) for seed in seeds])
        settings = (config.rate(epoch), config.momentum, config.weight_decay)
        state, losses, top1 = _epoch(state, data, orders, *map(jnp.float32, settings))
        history.append((losses, top1))
    table = np.stack([np.stack([np.asarray(a), np.asarray(b)], axis=-1) for a, b in history], axis=1)
    final = [np.asarray(part) for part in state[0]]
    return [(w, b, None, rows) for w, b, rows in zip(*final, table, strict=True)]


@jax.jit
def _epoch(state: Any, data: Any, orders: jax.Array, rate: Any, momentum: Any, decay: Any) -> Any:
    """Run one epoch for every seed and return (weights, velocities), mean loss and test accuracy of each."""
    x, y, test_x, test_y = data

    def one(state: Any, order: jax.Array) -> Any:
        def step(state: Any, rows: jax.Array) -> Any:
            weights, velocities = state
            present = rows >= 0

            def loss_of(weights: Any) -> jax.Array:
                logits = x[rows] @ weights[0] + weights[1]
                each = optax.softmax_cross_entropy_with_integer_labels(logits, y[rows])
                return jnp.where(present, each, 0.0).sum() / present.sum()

            loss, grads = jax.value_and_grad(loss_of)(weights)
            velocities = jax.tree.map(lambda v, g, w: momentum * v + g + decay * w, velocities, grads, weights)
            weights = jax.tree.map(lambda w, v: w - rate * v, weights, velocities)
            return (weights, velocities), loss * present.sum()

        state, losses = jax.lax.scan(step, state, order)
        predicted = jnp.argmax(test_x @ state[0][0] + state[0][1], axis=-1)
        return state, losses.sum() / len(y), (predicted == test_y).mean()

    return jax.vmap(one)(state, orders)


def _fit_lbfgs(
    train: Features, val: Features | None, num_classes: int, seeds: Sequence[int], C: float | None
) -> list[tuple[np.ndarray, np.ndarray, float, None]]:
    if C is not None:
        weights, bias = _logistic(train, num_classes, C)
        return [(weights, bias, C, None) for _ in seeds]
    fitted = []
    for seed in seeds:
        first, second = _split(train, seed) if val is None else (train, val)
        scores = []
        for candidate in C_GRID:
            weights, bias = _logistic(first, num_classes, candidate)
            scores.append(top1_accuracy(second.y, np.argmax(second.x @ weights + bias, axis=1)))
        best = float(C_GRID[int(np.argmax(scores))])  # the strongest regularisation among equals
        both = train if val is None else Features(np.concatenate([train.x, val.x]), np.concatenate([train.y, val.y]))
        fitted.append((*_logistic(both, num_classes, best), best, None))
    return fitted


def _logistic(train: Features, num_classes: int, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [F, K] and biases [K] of logistic regression; classes without examples are never predicted."""
    linear_model = require("sklearn.linear_model", "linear_probe")
    present = np.unique(train.y)
    if len(present) < 2:
        fail("linear_probe", "train", f"{len(present)} class", "examples of at least two classes")
    model = linear_model.LogisticRegression(C=C, max_iter=_MAX_ITER, tol=1e-6).fit(train.x.astype(np.float64), train.y)
    weights, bias = model.coef_.T, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one column: the difference of the two logits
        weights, bias = np.concatenate([-weights, weights], axis=1) / 2, np.concatenate([-bias, bias]) / 2
    out_w = np.zeros((train.x.shape[1], num_classes), np.float32)
    out_b = np.full(num_classes, -np.inf, np.float32)
    out_w[:, present], out_b[present] = weights, bias
    return out_w, out_b


def _split(train: Features, seed: int) -> tuple[Features, Features]:
    order = np.random.default_rng((seed, 2)).permutation(len(train.y))
    count = max(1, len(order) // _VALIDATION_SHARE)
    first, second = (Features(train.x[rows], train.y[rows]) for rows in (order[count:], order[:count]))
    return first, second


def _statistics(x: np.ndarray, standardize: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return shift and scale of each feature; a constant one is only shifted."""
    if not standardize:
        return np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    deviation = x.std(axis=0, dtype=np.float64)
    return x.mean(axis=0, dtype=np.float64).astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _check(train: Features, test: Features, val: Features | None, num_classes: int) -> None:
    for name, part in (("train", train), ("test", test), ("val", val)):
        if part is None:
            continue
        if part.x.shape[1] != train.x.shape[1]:
            fail("linear_probe", name, f"{part.x.shape[1]} features", f"{train.x.shape[1]}, as train")
        if part.y.min() < 0 or part.y.max() >= num_classes:
            got = f"classes {part.y.min()} to {part.y.max()}"
            fail("linear_probe", name, got, f"the range 0 to {num_classes - 1}")
