"""The training loop of every method: the plan decides when masks change and whether a step runs on stored weights."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from sparsejax import data, nn, pruning
from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax._files import write_atomically
from sparsejax._folder_lock import folder_lock
from sparsejax.train._config import TrainConfig
from sparsejax.train._folder import RunDir
from sparsejax.train._inputs import Inputs, inputs_of
from sparsejax.train._optimizer import learning_rates
from sparsejax.train._partner import fork_partner, partner_options
from sparsejax.train._prepare import Prepared, prepare
from sparsejax.train._rebuild import kept_options, models_shape
from sparsejax.train._source import with_model_of_run
from sparsejax.train._state import Storage, TrainState, sparse_masks, sparsity, with_new_mask
from sparsejax.train._steps import BoundStep, bind_step, step_of_kind
from sparsejax.train.checkpoints._arrays import assign, capacity_in, collect, log_in, masks_in
from sparsejax.train.log._epochs import Callback, EpochLog, epoch_row
from sparsejax.train.log._metrics import MetricsLog, MetricsRow, first_rows, phase_times, read_metrics, rows_in
from sparsejax.train.log._plot import plot_metrics
from sparsejax.train.log._progress import Quiet, Reporter
from sparsejax.train.processes._checkpoints import GroupCheckpoints
from sparsejax.train.processes._group import ALONE, Group
from sparsejax.train.processes._inputs import inputs_of_group
from sparsejax.train.processes._step import bind_group_step
from sparsejax.train.results._flops import FlopCounter, total_training_flops
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._step_cost import StepComparison, compare_steps, forward_ms, model_bytes
from sparsejax.train.results._tables import plan_text

T = TypeVar("T")

# Steps after which the time of the run is estimated; the first of them compiles.
_ESTIMATE_AFTER = 5


class TrainRun:
    """A training run whose configuration has been checked."""

    def __init__(
        self,
        config: TrainConfig,
        out: str | os.PathLike[str],
        *,
        dataset: data.Dataset | data.ImageTask | Inputs | None = None,
        model: nnx.Module | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        checkpoint_every: int = 100,
        resume: bool = True,
        measure: bool = True,
        callbacks: Sequence[Callback] = (),
        times_forward: bool = False,
        group: Group = ALONE,
    ) -> None:
        """Load data and network, and check the folder, which is written to when training begins.

        Args:
          config: the run.
          out: folder for checkpoints, metrics and the picture; made if absent.
          dataset: instead of the one that ``config.data`` names; a `sparsejax.data.Dataset` is standardised.
          model: NNX classifier in training mode, instead of the one that ``config.model`` or ``config.source`` names;
            a copy is trained.
          masks: of the model, bool arrays by layer path; its patterns and zeros if None.
          checkpoint_every: steps between checkpoints; the last two are kept, and one is written at the end.
          resume: go on from the last checkpoint in ``out`` if there is one; otherwise discard what is there.
          measure: method "fixed": store those layers compressed that are then measured faster; otherwise all that
            are 80 % sparse. The choice is kept in the folder, and a resumed run repeats it.
          callbacks: called with the `EpochRow` of each epoch.
          times_forward: measure a forward pass at the end of each epoch, which compiles it once.
          group: the processes that share the batches; ``out`` is a folder of each, and only that of the first is kept.

        Raises:
          ValueError: a bad configuration, or ``out`` holds the run of another one.
          OSError: data or folder cannot be read.
          ImportError: a package is missing.
        """
        for module in ("orbax.checkpoint", "filelock"):  # now, not after the last step
            require(module, "train")
        if checkpoint_every < 1:
            fail("train", "checkpoint_every", f"value {checkpoint_every}", "at least 1 step")
        self.config = config = with_model_of_run(config) if model is None else config
        self.group = group
        self.dir = RunDir(out)
        if resume:
            self.dir.check(config)
        self.inputs = inputs_of_group(inputs_of(config, dataset), group)
        stored = self.dir.stored_layers() if resume and self.dir.belongs_to(config) else None
        prepared = self._prepared(model, masks, stored, measure)
        self.prepared, self.plan, self.capacity = prepared, prepared.plan, prepared.capacity
        self._model, self._optimizer = prepared.model, prepared.optimizer
        self._is_named = model is None
        self.kept_dense, self.inner = prepared.kept_dense, prepared.inner
        self.flops = FlopCounter(nn.densify(self._model), self.inputs.image_shape)
        self.checkpoint_every, self.callbacks, self._times_forward = checkpoint_every, tuple(callbacks), times_forward
        self.checkpoints = GroupCheckpoints(self.dir.checkpoints, config.to_dict(), group)
        self._resume, self._is_writing = resume, False

    def _prepared(
        self,
        model: nnx.Module | None,
        masks: Mapping[str, np.ndarray] | None,
        stored: list[str] | None,
        measure: bool,
    ) -> Prepared:
        """Network, optimizer and plan; which layers are stored is chosen by the first process, for all."""
        make = functools.partial(prepare, self.config, self.inputs, model, masks, measure=measure)
        if self.group.is_alone or self.config.method != "fixed":
            return make(stored=stored)
        first = make(stored=stored) if self.group.writes else None
        chosen = self.group.of_first(lambda: None if first is None or first.fixed is None else list(first.fixed.stored))
        return first or make(stored=chosen)

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
            return self.finish(last, report)

    @contextlib.contextmanager
    def writing(self) -> Generator[None]:
        """Keep other processes from writing to the folder inside the block."""
        if self._is_writing:
            yield
            return
        with folder_lock(self.dir.root, "train"):
            self.dir.claim(self.config, resume=self._resume)
            if self._is_named and not self.dir.network.exists():
                write_atomically(self.dir.network, json.dumps(self._description(), indent=2) + "\n")
            if self.prepared.fixed is not None and self.dir.stored_layers() is None:
                self.dir.keep_stored_layers(self.prepared.fixed.stored)
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
                for text in self._notes():
                    report.note(text)
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
          FileNotFoundError: the run has no checkpoint.
          ValueError: all are damaged.
        """
        restored = self.checkpoints.newest()
        if restored is None:
            rule = "at least one"
            fail("train", f"the run in {str(self.dir.root)!r}", "no checkpoint", rule, error=FileNotFoundError)
        for remark in restored[2]:
            warnings.warn(remark, UserWarning, stacklevel=2)
        return self._restored(restored, Storage(self.kept_dense, self.capacity)).model

    def _notes(self) -> list[str]:
        fixed = self.prepared.fixed
        text = plan_text(self.plan, self.capacity, self.flops)
        report = [] if fixed is None or fixed.report is None else [str(fixed.report)]
        return [*self.prepared.notes, *report, text]

    def _train(self, state: TrainState, storage: Storage, log: MetricsLog, report: Reporter) -> Iterator[TrainState]:
        plan, begun, times = self.plan, state.step, []
        step, zeros = self._bound(state), self._zeros(state)
        recent = deque(rows_in(log.text())[-(state.step % plan.steps_per_epoch) or 10**9 :], plan.steps_per_epoch)
        epochs = EpochLog(self.dir.epochs, state.step // plan.steps_per_epoch)
        with contextlib.closing(self.inputs.batches(state.step, plan.total)) as batches:
            while state.step < plan.total:
                (images, labels), waited = _timed(lambda: next(batches))
                flops = self.flops.forward(state.model) if plan.tests_after(state.step + 1) else None
                begin = time.perf_counter()
                if plan.is_stored(state.step) != state.is_stored:
                    state = storage.to_dense(state) if state.is_stored else storage.to_stored(state)
                    step = self._bound(state)
                loss = float(step(images, labels))
                times.append(time.perf_counter() - begin)

                phase, epoch = plan.phase(state.step), state.step // plan.steps_per_epoch
                state, is_new, lost = with_new_mask(replace(state, step=state.step + 1))
                if is_new:
                    zeros = self._zeros(state)
                    self.group.same_masks(state.step, state.support)
                tested = self.inputs.accuracy(state.model) if plan.tests_after(state.step) else None
                row = MetricsRow(
                    *(state.step, epoch, phase.name, loss, tested, zeros, lost, flops), 1e3 * times[-1], 1e3 * waited
                )
                log.write(row)
                recent.append(row)
                report.step(row)
                if state.step % plan.steps_per_epoch == 0:
                    self._close_epoch(state, epochs, recent, images, labels)
                if state.step - begun == _ESTIMATE_AFTER:
                    report.note(self._estimate(times, state))
                if state.step == plan.fork and self.group.writes:
                    described = self._description() if self._is_named else None
                    fork_partner(self.config, self.dir.root, self.inner, state, log.text(), plan.total, described)
                if state.step % self.checkpoint_every == 0 or state.step == plan.total:
                    arrays = collect(state.model, state.optimizer, state.support, storage.capacity, log.text())
                    self.checkpoints.save(state.step, arrays)
                yield state

    def _close_epoch(
        self, state: TrainState, epochs: EpochLog, recent: Iterable[MetricsRow], images: Any, labels: Any
    ) -> None:
        """Write the row of an epoch, and call the callbacks."""
        epoch = state.step // self.plan.steps_per_epoch
        rates: Any = learning_rates(self.config, self.plan.total)
        forward = forward_ms(state.model, self.prepared.kind, images, labels) if self._times_forward else None
        row = epoch_row(epoch, list(recent), float(rates(state.step - 1)), forward)
        epochs.write(row)
        for callback in self.callbacks:
            callback(row)

    def _bound(self, state: TrainState) -> BoundStep:
        if not self.group.is_alone:
            options: Any = {"is_stored": state.is_stored, "sync_batch_norm": self.config.sync_batch_norm}
            return bind_group_step(self.group, state.model, state.optimizer, self.prepared.kind, **options)
        step = step_of_kind(self.prepared.kind, is_stored=state.is_stored)
        return bind_step(state.model, state.optimizer, step)

    def _zeros(self, state: TrainState) -> float:
        return sparsity(state) if self.prepared.fixed is None else self.prepared.fixed.sparsity()

    def _description(self) -> dict[str, Any]:
        """What builds the network again without the data."""
        shape = models_shape(self._model, self.inputs.image_shape)
        built = {"model": self.config.model, "num_classes": self.inputs.num_classes, "image_shape": shape}
        return built | {"input_shape": list(self.inputs.image_shape)} | kept_options(self._model)

    def _restored(self, restored: tuple[int, Mapping[str, Any], list[str]] | None, storage: Storage) -> TrainState:
        """The state of a checkpoint, or the initial one; the last step decides in which form the weights are."""
        state = TrainState(nnx.clone(self._model), nnx.clone(self._optimizer), 0, False, None)
        if restored is None:
            is_fixed = self.prepared.fixed is not None
            return replace(state, support=dict(self.prepared.masks) if is_fixed else sparse_masks(state.optimizer))
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

    def finish(self, state: TrainState, report: Reporter | None = None) -> TrainResult:
        """Measure the trained network, and write the result and the picture; method "acdc" trains its dense partner.

        Raises:
          ValueError: the rows of ``metrics.csv`` are not those of the steps taken; no result is written.
        """
        with self.writing():
            return self._finish(state, report)

    def _finish(self, state: TrainState, report: Reporter | None) -> TrainResult:
        rows = read_metrics(self.dir.metrics)
        if [row.step for row in rows] != list(range(1, state.step + 1)):
            hint = "Run the command again: the rows are in the checkpoint."
            fail("train", f"file {str(self.dir.metrics)!r}", f"{len(rows)} rows", f"those of {state.step} steps", hint)
        examples = state.step * self.inputs.batch_size
        result = TrainResult(
            state.model,
            self.inputs.accuracy(state.model),
            self._zeros(state),
            state.step,
            phase_times(rows),
            total_training_flops(rows, self.inputs.batch_size),
            pruning.accounting.training_flops([(self.flops.dense, examples)]),
            model_bytes(state.model, state.optimizer),
            self._comparison(state) if self.group.writes and nn.pattern_masks(state.model) else None,
            self.dir.root,
            None if self.plan.fork is None else self._partner.fit(report),
        )
        write_atomically(self.dir.result, json.dumps(result.to_dict(), indent=2) + "\n")
        if self.group.writes:
            plot_metrics({self.config.method: rows}, self.dir.plot)
        return result

    @functools.cached_property
    def _partner(self) -> TrainRun:
        """The run that trains the dense network of the last dense phase to the end."""
        config, out = partner_options(self.config, self.dir.root, self.plan.total)
        options: Any = {"checkpoint_every": self.checkpoint_every, "group": self.group}
        return TrainRun(config, out, dataset=self.inputs, model=self._model, **options)

    def _comparison(self, state: TrainState) -> StepComparison:
        images, labels = next(self.inputs.batches(0, 1))
        return compare_steps(nn.densify(state.model), state.model, self.inner, images, labels)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


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
