"""The training loop of every method: the plan decides when masks change and whether a step runs on stored weights."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import nnx

from sparsejax import data, models, nn, pruning
from sparsejax._checks import fail, message
from sparsejax._extras import require
from sparsejax._files import write_atomically
from sparsejax._folder_lock import folder_lock
from sparsejax.train._config import TrainConfig
from sparsejax.train._folder import RunDir
from sparsejax.train._inputs import TaskInputs, load_inputs
from sparsejax.train._optimizer import inner_optimizer, layers_kept_dense, optimizer, prunable
from sparsejax.train._state import Storage, TrainState, sparse_masks, sparsity, with_new_mask
from sparsejax.train._steps import BoundStep, bind_step, stored_step, train_step
from sparsejax.train.checkpoints._arrays import assign, capacity_in, collect, log_in, masks_in
from sparsejax.train.checkpoints._checkpoint import Checkpoints
from sparsejax.train.log._metrics import MetricsLog, MetricsRow, first_rows, phase_times, read_metrics
from sparsejax.train.log._plot import plot_metrics
from sparsejax.train.log._progress import Quiet, Reporter
from sparsejax.train.plans._methods import make_plan
from sparsejax.train.results._flops import FlopCounter, total_training_flops
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._step_cost import StepComparison, compare_steps, model_bytes
from sparsejax.train.results._tables import plan_text

# Steps after which the time of the run is estimated; the first of them compiles.
_ESTIMATE_AFTER = 5


class TrainRun:
    """A training run whose configuration has been checked."""

    def __init__(
        self,
        config: TrainConfig,
        out: str | os.PathLike[str],
        *,
        dataset: data.Dataset | data.ImageTask | None = None,
        model: nnx.Module | None = None,
        checkpoint_every: int = 100,
        resume: bool = True,
    ) -> None:
        """Load the data, build the model, and check the folder, which is written to when training begins.

        Args:
          config: the run.
          out: folder for checkpoints, metrics and the picture; made if absent.
          dataset: instead of the one that ``config.data`` names; a `sparsejax.data.Dataset` is standardised.
          model: NNX classifier in training mode, instead of the one that ``config.model`` names; a copy is
            trained.
          checkpoint_every: steps between checkpoints; the last two are kept, and one is written at the end.
          resume: go on from the last checkpoint in ``out`` if there is one; otherwise discard what is there.

        Raises:
          ValueError: a bad configuration, or ``out`` holds the run of another one.
          OSError: data or folder cannot be read.
          ImportError: a package is missing.
        """
        for module in ("orbax.checkpoint", "filelock"):  # now, not after the last step
            require(module, "train")
        if checkpoint_every < 1:
            fail("train", "checkpoint_every", f"value {checkpoint_every}", "at least 1 step")
        self.config = config
        self.inputs = _inputs(config, dataset)
        self.plan = make_plan(config, self.inputs.steps_per_epoch * config.batch_size)
        self._model = self._build() if model is None else nnx.clone(model)
        self.kept_dense = layers_kept_dense(self._model, self.inputs.image_shape[-1], self.inputs.num_classes)
        self.inner = inner_optimizer(config, self.plan)
        self._optimizer = nnx.Optimizer(self._model, optimizer(config, self.plan, self.kept_dense), wrt=nnx.Param)
        self.flops = FlopCounter(self._model, self.inputs.image_shape)
        self.capacity = None
        if self.plan.method is not None:
            params = nnx.as_pure(nnx.state(self._model, nnx.Param))
            self.capacity = pruning.report(params, self.plan.method, where=prunable(self.kept_dense))
            # Methods that start sparse: the first forward pass must be that of the sparse network.
            nnx.update(self._model, pruning.forward_params(params, nnx.as_pure(self._optimizer.opt_state)))
        self.checkpoint_every = checkpoint_every
        self.dir = RunDir(out)
        self.checkpoints = Checkpoints(self.dir.checkpoints, config.to_dict())
        self._resume, self._is_writing = resume, False
        if resume:
            self.dir.check(config)

    def _build(self) -> nnx.Module:
        height, width, channels = self.inputs.image_shape
        rngs = nnx.Rngs(self.config.seed)
        return models.build(self.config.model, self.inputs.num_classes or 0, channels, (height, width), rngs)

    def fit(self, report: Reporter | None = None) -> TrainResult:
        """Train to the end, from the last checkpoint if there is one.

        Killed at any moment and started again, a run ends with the bits of one that was not interrupted, on the same
        machine, with the same number of threads and instruction set.

        Args:
          report: where progress goes; nowhere if None.

        Raises:
          OSError: another process writes to the folder, or it cannot be written to; what is in it stays valid, and
            the run can be resumed.
          ValueError: no checkpoint in the folder can be loaded.
        """
        with self.writing():
            *_, last = self.states(report)
            return self.finish(last)

    @contextlib.contextmanager
    def writing(self) -> Generator[None]:
        """Keep other processes from writing to the folder inside the block."""
        if self._is_writing:
            yield
            return
        with folder_lock(self.dir.root, "train"):
            self.dir.claim(self.config, resume=self._resume)
            self._resume, self._is_writing = True, True
            try:
                yield
            finally:
                self._is_writing = False

    def states(self, report: Reporter | None = None) -> Generator[TrainState]:
        """Train step by step: the state now, then that after every step; only the newest may be used."""
        report = report or Quiet()
        storage = Storage(self.kept_dense, self.capacity)
        with self.writing():
            restored = self.checkpoints.newest()
            state = self._restored(restored, storage)
            self.checkpoints.set_aside(state.step)
            report.start(self.config.method, self.plan.total, state.step)
            try:
                for remark in restored[2] if restored else ():
                    report.note(f"warning: {remark}")
                report.note(plan_text(self.plan, self.capacity, self.flops))
                yield state
                log = MetricsLog(self.dir.metrics, self._log(restored))
                if log.was_damaged:
                    report.note(f"warning: {self.dir.metrics} lacked rows; rebuilt from the checkpoint.")
                with contextlib.closing(log):
                    yield from self._train(state, storage, log, report)
            finally:
                report.finish()

    def restore(self) -> nnx.Module:
        """Return the network of the newest checkpoint that can be loaded; nothing is written.

        Raises:
          FileNotFoundError: there is none.
          ValueError: all are damaged.
        """
        restored = self.checkpoints.newest()
        if restored is None:
            rule = "at least one"
            fail("train", f"the run in {str(self.dir.root)!r}", "no checkpoint", rule, error=FileNotFoundError)
        for remark in restored[2]:
            warnings.warn(remark, UserWarning, stacklevel=2)
        return self._restored(restored, Storage(self.kept_dense, self.capacity)).model

    def _train(self, state: TrainState, storage: Storage, log: MetricsLog, report: Reporter) -> Iterator[TrainState]:
        plan, begun, times = self.plan, state.step, []
        step, zeros = _bound(state), sparsity(state)
        for images, labels in self.inputs.batches(state.step, plan.total):
            flops = self.flops.forward(state.model) if plan.tests_after(state.step + 1) else None
            begin = time.perf_counter()
            if plan.is_stored(state.step) != state.is_stored:
                state = storage.to_dense(state) if state.is_stored else storage.to_stored(state)
                step = _bound(state)
            loss = float(step(images, labels))
            times.append(time.perf_counter() - begin)

            phase, epoch = plan.phase(state.step), state.step // plan.steps_per_epoch
            state, is_new, lost = with_new_mask(replace(state, step=state.step + 1))
            zeros = sparsity(state) if is_new else zeros
            tested = self._accuracy(state) if plan.tests_after(state.step) else None
            row = MetricsRow(state.step, epoch, phase.name, loss, tested, zeros, lost, flops, 1e3 * times[-1])
            log.write(row)
            report.step(row)
            if state.step - begun == _ESTIMATE_AFTER:
                report.note(self._estimate(times, state))
            if state.step % self.checkpoint_every == 0 or state.step == plan.total:
                arrays = collect(state.model, state.optimizer, state.support, storage.capacity, log.text())
                self.checkpoints.save(state.step, arrays)
            yield state

    def _restored(self, restored: tuple[int, Mapping[str, Any], list[str]] | None, storage: Storage) -> TrainState:
        """The state of a checkpoint, or the initial one; the last step decides in which form the weights are."""
        state = TrainState(nnx.clone(self._model), nnx.clone(self._optimizer), 0, False, None)
        if restored is None:
            return replace(state, support=sparse_masks(state.optimizer))
        done, arrays, _ = restored
        support, storage.capacity = masks_in(arrays), capacity_in(arrays)
        if self.plan.is_stored(done - 1):
            model = storage.sparse_model(state.model, support)
            tuned = nn.carry_optimizer(state.optimizer, state.model, model)
            state = replace(state, model=model, optimizer=tuned, is_stored=True)
        assign(arrays, state.model, state.optimizer)
        return replace(state, step=done, support=support or None)

    def _log(self, restored: tuple[int, Mapping[str, Any], list[str]] | None) -> str:
        """The rows up to a checkpoint; those of version 0.1 have none, and the file is believed."""
        if restored is None:
            return ""
        done, arrays, _ = restored
        log = log_in(arrays)
        return first_rows(self.dir.metrics, done) if log is None else log

    def _estimate(self, times: list[float], state: TrainState) -> str:
        left, per_step = self.plan.total - state.step, statistics.median(times)
        seconds = left * per_step
        duration = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        caveat = ", not counting that sparse steps differ" if self.plan.method and not state.is_stored else ""
        return f"{left} steps left: about {duration} at {per_step:.3f} s/step{caveat}"

    def finish(self, state: TrainState) -> TrainResult:
        """Measure the trained network, and write the result and the picture.

        Raises:
          ValueError: the rows of ``metrics.csv`` are not those of the steps taken; no result is written.
        """
        with self.writing():
            return self._finish(state)

    def _finish(self, state: TrainState) -> TrainResult:
        rows = read_metrics(self.dir.metrics)
        if [row.step for row in rows] != list(range(1, state.step + 1)):
            hint = "Run the command again: the rows are in the checkpoint."
            fail("train", f"file {str(self.dir.metrics)!r}", f"{len(rows)} rows", f"those of {state.step} steps", hint)
        examples = state.step * self.config.batch_size
        result = TrainResult(
            state.model,
            self._accuracy(state),
            sparsity(state),
            state.step,
            phase_times(rows),
            total_training_flops(rows, self.config.batch_size),
            pruning.accounting.training_flops([(self.flops.dense, examples)]),
            model_bytes(state.model, state.optimizer),
            self._comparison(state) if state.is_stored else None,
            self.dir.root,
        )
        write_atomically(self.dir.result, json.dumps(result.to_dict(), indent=2) + "\n")
        plot_metrics({self.config.method: rows}, self.dir.plot)
        return result

    def _accuracy(self, state: TrainState) -> float | None:
        return self.inputs.accuracy(state.model)

    def _comparison(self, state: TrainState) -> StepComparison:
        images, labels = next(self.inputs.batches(0, 1))
        return compare_steps(nn.densify(state.model), state.model, self.inner, images, labels)


def _bound(state: TrainState) -> BoundStep:
    return bind_step(state.model, state.optimizer, stored_step if state.is_stored else train_step)


def _inputs(config: TrainConfig, dataset: data.Dataset | data.ImageTask | None) -> TaskInputs:
    if dataset is None:
        return load_inputs(config)
    if isinstance(dataset, data.Dataset):
        dataset = data.ImageTask.from_dataset(dataset.standardized(), allow_missing_classes=True)
    return TaskInputs(dataset, config)


def train(config: TrainConfig, out: str | os.PathLike[str], **options: Any) -> TrainResult:
    """Train a network sparse: dense weights where a method needs them, sparse kernels everywhere else.

    Phases over the steps of the run, see `TrainPhase`: "magnitude" is dense, prune, sparse; "acdc" alternates dense and
    sparse phases and ends sparse; "rigl", "set" and "static" are sparse from the first step. In phase "sparse"
    parameters, gradients and optimizer state hold the stored weights only. Two programs are compiled, one for each
    form, however often the mask changes. The first convolution and the classifier stay dense. Checkpoints make the run
    resumable to the same bits; metrics go to ``out/metrics.csv``, curves to ``out/curves.png``, the final numbers to
    ``out/result.json``.

    Args:
      config: the run.
      out: its folder.
      **options: as for `TrainRun`: ``dataset``, ``model``, ``checkpoint_every``, ``resume``.

    Returns:
      The trained model and the final numbers, a training step dense against sparse among them.

    Raises:
      ValueError: a bad configuration, or ``out`` holds the run of another one.
      OSError: data or folder cannot be read or made.
      ImportError: orbax-checkpoint, filelock or scikit-learn is missing. Without matplotlib the picture is left out,
        with a warning.

    Source: Zhu & Gupta 2017, "To prune, or not to prune"; Peste et al. 2021, "AC/DC"; Evci et al. 2020, "RigL"; Nikdan
    et al. 2023 (SparseProp), section 5.

    >>> import tempfile
    >>> config = TrainConfig(model="mlp", epochs=1, batch_size=256)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     result = train(config, out)
    >>> result.step, round(result.sparsity, 2)
    (5, 0.9)
    """
    return TrainRun(config, out, **options).fit()


def load_model(out: str | os.PathLike[str]) -> nnx.Module:
    """Return the network of the last checkpoint of a training run, with sparse layers if it was trained that far.

    Args:
      out: folder of `train`. The data it was trained on must still be where it was.

    Raises:
      FileNotFoundError: no run, or one without a checkpoint.
      ValueError: a configuration that cannot be read.
    """
    file = Path(out) / "run.json"
    if not file.is_file():
        rule = "the folder of a training run, with run.json"
        fail("load_model", "out", f"value {str(out)!r}", rule, error=FileNotFoundError)
    try:
        config = TrainConfig(**json.loads(file.read_text()))
    except (TypeError, json.JSONDecodeError) as error:
        text = message("load_model", f"file {str(file)!r}", f"another form ({error})", "the configuration of a run")
        raise ValueError(text) from error
    return TrainRun(config, out).restore()
