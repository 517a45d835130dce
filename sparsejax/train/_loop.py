"""The training loop: dense warm-up, gradual pruning of masked weights, then training of the stored weights alone."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from sparsejax import data, models, nn
from sparsejax._checks import fail
from sparsejax.train._checkpoint import Checkpoints, assign, masks_in
from sparsejax.train._compare import StepComparison, compare_steps
from sparsejax.train._config import TrainConfig
from sparsejax.train._extras import require_extras
from sparsejax.train._metrics import MetricsLog, Row, median_ms, read_metrics
from sparsejax.train._optimizer import inner_optimizer, layers_kept_dense, optimizer
from sparsejax.train._plan import Plan
from sparsejax.train._plot import plot_metrics
from sparsejax.train._progress import Quiet, Reporter
from sparsejax.train._run_dir import RunDir, write_atomically
from sparsejax.train._state import TrainState, sparse_model, to_sparse
from sparsejax.train._steps import accuracy, bind_step

# Steps after which the time of the run is estimated; the first of them compiles.
_ESTIMATE_AFTER = 5


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      model: the trained module: sparse layers after method "magnitude", dense after "dense".
      accuracy: fraction of test examples classified correctly.
      sparsity: fraction of zeros among the prunable weights.
      step: steps done.
      phase_ms: median wall time of a step in each phase, milliseconds.
      comparison: the training step dense against sparse; None for method "dense".
      out: folder of the run.
    """

    model: Any
    accuracy: float
    sparsity: float
    step: int
    phase_ms: dict[str, float]
    comparison: StepComparison | None
    out: Path

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "accuracy": self.accuracy,
            "sparsity": self.sparsity,
            "step": self.step,
            "phase_ms": self.phase_ms,
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "out": str(self.out),
        }


class Run:
    """A run that is ready to go: everything that can be wrong with its configuration has been checked."""

    def __init__(
        self,
        config: TrainConfig,
        out: str | os.PathLike[str],
        *,
        dataset: data.Dataset | None = None,
        model: Any = None,
        checkpoint_every: int = 100,
        resume: bool = True,
    ) -> None:
        """Load the data, build the model, and claim the folder.

        Args:
          config: the run.
          out: folder for checkpoints, metrics and the picture; made if absent.
          dataset: instead of the one that ``config.data`` names.
          model: NNX classifier in training mode, instead of the one that ``config.model`` names; a copy is
            trained.
          checkpoint_every: steps between checkpoints; the last two are kept, and one is written at the end.
          resume: go on from the last checkpoint in ``out`` if there is one; otherwise discard what is there.

        Raises:
          ValueError: a bad configuration, or ``out`` holds the run of another one.
          OSError: data or folder cannot be read or made.
          ImportError: a package is missing.
        """
        require_extras()
        if checkpoint_every < 1:
            fail("train", "checkpoint_every", f"value {checkpoint_every}", "at least 1 step")
        self.config = config
        self.dataset = (data.load(config.data) if dataset is None else dataset).standardized()
        self.plan = Plan.of(config, len(self.dataset.train_labels))
        self._model = self._build() if model is None else model
        self.kept_dense = layers_kept_dense(self._model, self.dataset.image_shape[-1], self.dataset.num_classes)
        self.inner = inner_optimizer(config, self.plan)
        self._optimizer = nnx.Optimizer(self._model, optimizer(config, self.plan, self.kept_dense), wrt=nnx.Param)
        self.checkpoint_every = checkpoint_every
        self.dir = RunDir(out)
        self.dir.claim(config, resume=resume)

    def _build(self) -> Any:
        height, width, channels = self.dataset.image_shape
        rngs = nnx.Rngs(self.config.seed)
        return models.build(self.config.model, self.dataset.num_classes, channels, (height, width), rngs)

    def fit(self, report: Reporter | None = None) -> TrainResult:
        """Train to the end, from the last checkpoint if there is one.

        Killed at any moment and started again, a run ends with the bits of one that was not interrupted, on the same
        machine, with the same number of threads and instruction set.

        Args:
          report: where progress goes; nowhere if None.
        """
        report = report or Quiet()
        with Checkpoints(self.dir.checkpoints) as checkpoints:
            state = self._restored(checkpoints)
            report.start(self.config.method, self.plan.total, state.step)
            try:
                with contextlib.closing(MetricsLog(self.dir.metrics, state.step)) as log:
                    state = self._train(state, checkpoints, log, report)
            finally:
                report.finish()
        return self._finish(state)

    def restore(self) -> Any:
        """Return the network of the last checkpoint.

        Raises:
          FileNotFoundError: there is none.
        """
        with Checkpoints(self.dir.checkpoints) as checkpoints:
            if checkpoints.latest() is None:
                rule = "at least one"
                fail("train", f"the run in {str(self.dir.root)!r}", "no checkpoint", rule, error=FileNotFoundError)
            return self._restored(checkpoints).model

    def _train(self, state: TrainState, checkpoints: Checkpoints, log: MetricsLog, report: Reporter) -> TrainState:
        plan, begun, times = self.plan, state.step, []
        step, sparsity = bind_step(state.model, state.optimizer), state.sparsity()
        for images, labels in self._batches(state.step):
            begin = time.perf_counter()
            loss = float(step(images, labels))
            times.append(time.perf_counter() - begin)

            phase, epoch = plan.phase(state.step), state.step // plan.steps_per_epoch
            state = dataclasses.replace(state, step=state.step + 1)
            if phase == "prune":
                sparsity = state.sparsity()
            tested = self._accuracy(state) if plan.evaluates_after(state.step) else None
            row = Row(state.step, epoch, phase, loss, tested, sparsity, 1e3 * times[-1])
            log.write(row)
            report.step(row)
            if state.step - begun == _ESTIMATE_AFTER:
                report.note(self._estimate(times, state))

            if plan.prunes and state.step == plan.sparse_from:
                state = to_sparse(state, self.inner, self.kept_dense)
                step, sparsity = bind_step(state.model, state.optimizer), state.sparsity()
            if state.step % self.checkpoint_every == 0 or state.step == plan.total:
                checkpoints.save(state.step, state.model, state.optimizer)
        return state

    def _batches(self, done: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches from step ``done`` on; each epoch's order depends on the seed and the epoch alone."""
        first, skipped = divmod(done, self.plan.steps_per_epoch)
        for epoch in range(first, self.config.epochs):
            batches = data.batches(
                self.dataset.train_images,
                self.dataset.train_labels,
                self.config.batch_size,
                seed=self.config.seed,
                epoch=epoch,
                drop_last=True,
            )
            yield from itertools.islice(batches, skipped if epoch == first else 0, None)

    def _restored(self, checkpoints: Checkpoints) -> TrainState:
        """The state of the last checkpoint, or the initial one; the step says in which form the weights are."""
        done = checkpoints.latest()
        model, tuned = nnx.clone(self._model), nnx.clone(self._optimizer)
        if done is None:
            return TrainState(model, tuned, 0, False)
        arrays = checkpoints.load(done)
        is_sparse = self.plan.prunes and done >= self.plan.sparse_from
        if is_sparse:
            model = sparse_model(model, masks_in(arrays), self.kept_dense)
            tuned = nnx.Optimizer(model, self.inner, wrt=nnx.Param)
        assign(arrays, model, tuned)
        return TrainState(model, tuned, done, is_sparse)

    def _estimate(self, times: list[float], state: TrainState) -> str:
        left, per_step = self.plan.total - state.step, statistics.median(times)
        seconds = left * per_step
        duration = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        caveat = ", not counting that sparse steps differ" if self.plan.prunes and not state.is_sparse else ""
        return f"{left} steps left: about {duration} at {per_step:.3f} s/step{caveat}"

    def _finish(self, state: TrainState) -> TrainResult:
        rows = read_metrics(self.dir.metrics)
        result = TrainResult(
            state.model,
            self._accuracy(state),
            state.sparsity(),
            state.step,
            median_ms(rows),
            self._comparison(state) if state.is_sparse else None,
            self.dir.root,
        )
        write_atomically(self.dir.result, json.dumps(result.to_dict(), indent=2) + "\n")
        plot_metrics({self.config.method: rows}, self.dir.plot)
        return result

    def _accuracy(self, state: TrainState) -> float:
        return accuracy(state.model, self.dataset.test_images, self.dataset.test_labels)

    def _comparison(self, state: TrainState) -> StepComparison:
        images, labels = next(self._batches(0))
        return compare_steps(nn.densify(state.model), state.model, self.inner, images, labels)


def train(config: TrainConfig, out: str | os.PathLike[str], **options: Any) -> TrainResult:
    """Train a network sparse: dense warm-up, gradual magnitude pruning, then sparse kernels to the end.

    Phases over the steps of the run: "dense" (no pruning), "prune" (masked dense weights, cubic schedule), "sparse"
    (parameters and optimizer state hold the stored weights only). The first convolution and the classifier stay
    dense. Checkpoints make the run resumable to the same bits; metrics go to ``out/metrics.csv``, curves to
    ``out/curves.png``, the final numbers to ``out/result.json``.

    Args:
      config: the run.
      out: its folder.
      **options: as for `Run`: ``dataset``, ``model``, ``checkpoint_every``, ``resume``.

    Returns:
      The trained model and the final numbers, a training step dense against sparse among them.

    Raises:
      ValueError: a bad configuration, or ``out`` holds the run of another one.
      OSError: data or folder cannot be read or made.
      ImportError: orbax, matplotlib or scikit-learn is missing.

    Source: Zhu & Gupta 2017, "To prune, or not to prune"; Nikdan et al. 2023 (SparseProp), section 5.

    >>> import tempfile
    >>> config = TrainConfig(model="mlp", epochs=1, batch_size=256)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     result = train(config, out)
    >>> result.step, round(result.sparsity, 2)
    (5, 0.9)
    """
    return Run(config, out, **options).fit()
