"""Time of linear fine-tuning with several forms of a frozen network: forward pass, classifier, data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax._checks import fail
from sparsejax._cpu_info import cpu_info
from sparsejax.analysis.transfer.runs._config import SGDConfig
from sparsejax.analysis.transfer.runs._features import features_of
from sparsejax.analysis.transfer.runs._linear import head_step
from sparsejax.analysis.transfer.runs._probe import initial_head
from sparsejax.data import ImageTask
from sparsejax.models import without_head


@dataclass(frozen=True)
class EpochCost:
    """Median seconds of an epoch of online linear fine-tuning, and its parts.

    Attributes:
      seconds: of the whole epoch.
      backbone: of the frozen network's forward passes.
      head: of the classifier's steps.
      data: of reading and augmenting images.
      compile: of the first call of each function, once.
    """

    seconds: float
    backbone: float
    head: float
    data: float
    compile: float


@dataclass(frozen=True)
class LinearCost:
    """The cost for each form of a network, measured alternately.

    Attributes:
      costs: by name.
      baseline: the name that the others are compared with.
      epochs: timed ones, for each form.
      batch_size, examples: of an epoch.
      threads, isa: of the machine.
    """

    costs: dict[str, EpochCost]
    baseline: str
    epochs: int
    batch_size: int
    examples: int
    threads: int
    isa: str

    def speedup(self, name: str, part: str = "seconds") -> float:
        """Return the time of the baseline divided by that of a form: above 1 the form is faster."""
        return getattr(self.costs[self.baseline], part) / getattr(self.costs[name], part)

    def break_even(self, name: str, once: float) -> float:
        """Return the epochs after which a form has saved a one-time cost, such as the seconds of its conversion.

        If features are computed only once, the whole saving is that of one epoch's ``backbone``.
        """
        saved = self.costs[self.baseline].seconds - self.costs[name].seconds
        return once / saved if saved > 0 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, for JSON."""
        ratios = {
            name: {"epoch": self.speedup(name), "backbone": self.speedup(name, "backbone")} for name in self.costs
        }
        return asdict(self) | {"speedup": ratios}

    def __str__(self) -> str:
        lines = [f"{self.examples} images, batch {self.batch_size}, {self.threads} threads, {self.isa}"]
        for name, cost in self.costs.items():
            lines.append(
                f"{name}: {cost.seconds:.3f} s an epoch (forward {cost.backbone:.3f}, classifier {cost.head:.3f},"
                f" data {cost.data:.3f}; compile {cost.compile:.1f}), {self.speedup(name):.2f}x, forward"
                f" {self.speedup(name, 'backbone'):.2f}x"
            )
        return "\n".join(lines)


def time_linear_epoch(
    models: Mapping[str, nnx.Module],
    task: ImageTask,
    *,
    head: str | None = None,
    batch_size: int = 64,
    epochs: int = 5,
    seed: int = 0,
) -> LinearCost:
    """Time an epoch of linear fine-tuning with features recomputed from the images, for several forms of one network.

    The forms are timed alternately, epoch by epoch, after one untimed batch of each that compiles. The last, smaller
    batch of an epoch is left out: it would compile a second time.

    Args:
      models: the forms by name, such as {"dense": densify(model), "sparse": model}; the first is the baseline.
      task: its training split is used.
      head: path of the classifier to leave out; looked up by name if None.
      batch_size: the study's is 64.
      epochs: timed ones of each form, at least 5.
      seed: of order, augmentation and classifier.

    Returns:
      `LinearCost`, with medians.

    Raises:
      ValueError: fewer than five epochs, no model, or fewer images than a batch.

    Source: Iofinova et al. 2022, time of linear fine-tuning on a CPU; split as this project defines it.
    """
    if epochs < 5:
        fail("time_linear_epoch", "epochs", f"value {epochs}", "at least 5", "Medians of fewer are not stable.")
    if not models or len(task.train) < batch_size:
        got = f"{len(models)} models and {len(task.train)} images"
        fail("time_linear_epoch", "models, task", got, f"one model and {batch_size} images at least")
    forms = {name: _Form(model, task, head, batch_size, seed) for name, model in models.items()}
    times: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in forms}
    for epoch in range(epochs):
        for name, form in forms.items():
            times[name].append(form.epoch(epoch))

    def median(name: str, part: int) -> float:
        return statistics.median(epoch[part] for epoch in times[name])

    costs = {
        name: EpochCost(median(name, 0), median(name, 1), median(name, 2), median(name, 3), form.compile)
        for name, form in forms.items()
    }
    info = cpu_info()
    used = len(task.train) // batch_size * batch_size
    return LinearCost(costs, next(iter(models)), epochs, batch_size, used, info.threads, info.isa)


class _Form:
    """One form of the network, with a classifier."""

    def __init__(self, model: nnx.Module, task: ImageTask, head: str | None, batch_size: int, seed: int) -> None:
        self._backbone = without_head(model, head)
        self._backbone.eval()
        self._forward = nnx.cached_partial(features_of, self._backbone)
        self._task, self._size, self._seed = task, batch_size, seed
        config = SGDConfig.linear()
        self._settings = config.learning_rate, config.momentum, config.weight_decay
        rows = np.arange(batch_size)
        begin = time.perf_counter()
        x = jax.block_until_ready(self._forward(jnp.asarray(task.train.images(rows))))
        weights = tuple(map(jnp.asarray, initial_head(seed, x.shape[1], task.num_classes)))
        self._state: Any = weights, tuple(map(jnp.zeros_like, weights))
        jax.block_until_ready(head_step(self._state, x, jnp.asarray(task.train.labels[rows]), *self._settings))
        self.compile = time.perf_counter() - begin

    def epoch(self, number: int) -> tuple[float, float, float, float]:
        """Return seconds: total, forward, classifier, data."""
        order = np.random.default_rng((self._seed, number)).permutation(len(self._task.train))
        parts = np.zeros(3)
        for start in range(0, len(order) - self._size + 1, self._size):
            rows = order[start : start + self._size]
            images, data = _timed(
                lambda rows=rows: jnp.asarray(self._task.train.images(rows, seed=(self._seed, number)))
            )
            labels = jnp.asarray(self._task.train.labels[rows])
            x, forward = _timed(lambda images=images: self._forward(images))
            (self._state, _), head = _timed(
                lambda x=x, labels=labels: head_step(self._state, x, labels, *self._settings)
            )
            parts += forward, head, data
        forward, head, data = map(float, parts)
        return forward + head + data, forward, head, data


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - begin
