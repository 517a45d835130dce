"""A study: backbones x tasks x regimes x seeds, resumable, in parallel through joblib."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax._extras import require
from sparsejax._files import write_atomically
from sparsejax._folder_lock import folder_lock
from sparsejax.analysis._arrays import read_number
from sparsejax.analysis._frames import read_stored
from sparsejax.analysis._parallel import Backend, run_jobs
from sparsejax.analysis.transfer.runs._batch_norm import recalibrate_batch_norm
from sparsejax.analysis.transfer.runs._config import SGDConfig
from sparsejax.analysis.transfer.runs._features import extract_features, model_hash
from sparsejax.analysis.transfer.runs._finetune import finetune
from sparsejax.analysis.transfer.runs._outputs import RunOutputs, predict_probabilities, save_outputs
from sparsejax.analysis.transfer.runs._probe import Solver, linear_probe
from sparsejax.analysis.transfer.tables._results import CATEGORIES
from sparsejax.data import ImageTask
from sparsejax.train import KernelChoice
from sparsejax.train._saved_forms import save_forms, saved_name

if TYPE_CHECKING:
    import pandas as pd

Regime = Literal["linear", "full"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Backbone:
    """A network to transfer, and its name in tables.

    Attributes:
      model: NNX module, dense or sparse, with its upstream classifier.
      method: pruning method; "Dense" for the unpruned network, which the others are compared with.
      sparsity: fraction of pruned weights, for tables.
      arch: name of the network.
      masks: bool array by layer path, or None: see `finetune`.
      category: of the method; that of the published study if it is one of its methods, else "other".
      head: path of the classifier; looked up by name if None.
      source: the run or PyTorch file that it comes from, whose names networks are saved under; "" for none.

    Raises:
      ValueError: ``sparsity`` is not a fraction in [0, 1).
    """

    model: nnx.Module
    method: str = "Dense"
    sparsity: float = 0.0
    arch: str = "network"
    masks: Mapping[str, ArrayLike] | None = None
    category: str | None = None
    head: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        sparsity = read_number("Backbone", "sparsity", self.sparsity)
        if not 0 <= sparsity < 1:
            fail("Backbone", "sparsity", f"value {sparsity:g}", "a fraction in [0, 1)")
        # The decimal that a float32 stands for: tables are grouped by it.
        object.__setattr__(self, "sparsity", float(str(np.asarray(self.sparsity))))


@dataclass(frozen=True)
class StudySettings:
    """How both regimes are run.

    Attributes:
      linear: settings of the SGD classifier, and the batch-norm mode of the features.
      full: changes to the study's settings of full fine-tuning, which depend on the data set: (field, value) pairs.
      solver: of the linear classifier.
      standardize: features, before the classifier.
      C: of solver "lbfgs".
      kernels: of full fine-tuning.
      feature_batch: images per call when features are computed.
      save: forms in which the networks of full fine-tuning are kept in ``out/networks``, as
        `sparsejax.train.save_network` takes them.
    """

    linear: SGDConfig = field(default_factory=SGDConfig.linear)
    full: tuple[tuple[str, Any], ...] = ()
    solver: Solver = "sgd"
    standardize: bool = False
    C: float | None = 1.0
    kernels: KernelChoice = "sparse"
    feature_batch: int = 128
    save: tuple[str, ...] = ()

    def full_config(self, dataset: str) -> SGDConfig:
        """Return the settings of full fine-tuning on a data set."""
        return SGDConfig.full(dataset, **dict(self.full))


def run_transfer(
    backbones: Sequence[Backbone],
    tasks: Sequence[ImageTask],
    out: str | os.PathLike[str],
    *,
    regimes: Sequence[Regime] = ("linear", "full"),
    seeds: Sequence[int] = (0, 1, 2),
    settings: StudySettings | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
    backend: Backend | None = None,
    address: str | None = None,
) -> pd.DataFrame:
    """Run every job that the folder does not have yet, and return all results.

    A job is one backbone on one task: features are computed once for all seeds of the linear regime, whose classifiers
    are trained as one batch; full fine-tuning runs seed by seed. Each finished run is a file, under a hash of weights,
    masks, data and settings, so an interrupted study resumes, and the job of a worker that was killed is done again.

    Args:
      backbones: networks.
      tasks: data sets.
      out: folder of results; made if absent. Features are kept in ``out/features``.
      regimes: "linear", "full", or both.
      seeds: of the downstream runs.
      settings: those of the published study if None.
      n_jobs: processes, as in joblib.
      progress: called in each process with (description, steps done, total steps); must be picklable if there
        are several.
      backend: "loky" (processes of this machine), "dask" or "ray" (a cluster, with ``out`` on a shared disk); None is
        what an enclosing ``joblib.parallel_config`` says, or loky.
      address: of the Dask scheduler or the Ray cluster; None starts one on this machine with ``n_jobs`` workers.

    Returns:
      Data frame of all runs asked for, columns as `check_results` describes, and ``top1``, ``mean_per_class``,
      ``solver``, ``selection`` ("last" or "validation"), and ``outputs``: where in the folder the probabilities on the
      test split are, for `read_outputs`; absent from runs of version 0.1.

    Raises:
      ValueError: no backbone, task or seed; an unknown regime; the same name twice; or a damaged file in the folder,
        which is named.
      OSError: another process writes to the folder, or it cannot be written to.
    """
    settings = settings or StudySettings()
    seeds = tuple(map(operator.index, seeds))  # those of NumPy and JAX too
    _check(backbones, tasks, regimes, seeds)
    with folder_lock(out, "transfer") as root:
        folder = root.resolve()  # workers may start elsewhere
        jobs = [
            (backbone, task, folder, tuple(regimes), seeds, settings, progress)
            for backbone in backbones
            for task in tasks
        ]
        parts = run_jobs("run_transfer", _job, jobs, n_jobs=n_jobs, backend=backend, address=address)
        rows = [row for part in parts for row in part]
    return require("pandas", "run_transfer").DataFrame(rows)


def _check(backbones: Any, tasks: Any, regimes: Any, seeds: Any) -> None:
    for name, values in (("backbones", backbones), ("tasks", tasks), ("regimes", regimes), ("seeds", seeds)):
        if not len(values):
            fail("run_transfer", name, "no element", "at least one")
    for regime in regimes:
        if regime not in get_args(Regime):
            fail("run_transfer", "regimes", f"value {regime!r}", f"one of {get_args(Regime)}")
    for name, keys in (
        ("backbones", [(b.arch, b.method, b.sparsity) for b in backbones]),
        ("tasks", [task.name for task in tasks]),
        ("seeds", list(seeds)),
    ):
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            fail("run_transfer", name, f"{twice[0]} twice", "different ones")


def _job(
    backbone: Backbone,
    task: ImageTask,
    folder: Path,
    regimes: tuple[str, ...],
    seeds: tuple[int, ...],
    settings: StudySettings,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Return all runs of one backbone on one task, in the order of regimes and seeds."""
    base = _base_key(backbone, task)
    files: dict[tuple[str, int], Path] = {}
    for regime in regimes:
        part = {"regime": regime} | _relevant(regime, task, settings)
        key = hashlib.sha256((base + json.dumps(part, sort_keys=True)).encode()).hexdigest()[:16]
        files |= {(regime, seed): folder / f"{task.name}-{regime}-{key}-{seed}.json" for seed in seeds}
    name = f"{backbone.method} {backbone.sparsity:g} on {task.name}"
    missing = [seed for seed in seeds if "linear" in regimes and not files["linear", seed].exists()]
    if missing:
        rows = _linear(backbone, task, folder, missing, settings, _named(progress, f"features, {name}"))
        for seed, (row, probs) in zip(missing, rows, strict=True):
            _store(files["linear", seed], row, RunOutputs(probs, task.test.labels, backbone.sparsity))
    for seed in seeds:
        if "full" in regimes and not _is_done(files["full", seed], settings):
            file, progress_of = files["full", seed], _named(progress, f"full, seed {seed}, {name}")
            row, probs, model = _full(backbone, task, seed, settings, progress_of)
            _keep(file, model, backbone, task, settings)
            _store(file, row, RunOutputs(probs, task.test.labels, backbone.sparsity))
    head = {
        "arch": backbone.arch,
        "method": backbone.method,
        "category": backbone.category or CATEGORIES.get(backbone.method, "other"),
        "sparsity": backbone.sparsity,
        "dataset": task.name,
        "metric": task.metric,
    }
    return [{"regime": r, **head, "seed": s, **read_stored("run_transfer", file)} for (r, s), file in files.items()]


def _is_done(file: Path, settings: StudySettings) -> bool:
    networks = file.parent / "networks" / file.stem
    return file.exists() and all((networks / saved_name(form)).exists() for form in settings.save)


def _keep(file: Path, model: nnx.Module, backbone: Backbone, task: ImageTask, settings: StudySettings) -> None:
    """Write the network of a run in the forms that are asked for."""
    if settings.save:
        folder = file.parent / "networks" / file.stem
        folder.mkdir(parents=True, exist_ok=True)
        shape = tuple(task.test.images([0]).shape[1:])
        save_forms(model, settings.save, folder, source=backbone.source, image_shape=shape)


def _store(file: Path, row: dict[str, Any], outputs: RunOutputs) -> None:
    """Write the probabilities, then the row that names them: a row without its probabilities never exists."""
    path = Path("outputs") / f"{file.stem}.npz"
    save_outputs(file.parent / path, outputs)
    write_atomically(file, json.dumps(row | {"outputs": str(path)}))


def _linear(
    backbone: Backbone,
    task: ImageTask,
    folder: Path,
    seeds: list[int],
    settings: StudySettings,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[dict[str, Any], np.ndarray]]:
    model = backbone.model
    if settings.linear.batch_norm == "recalibrated":
        model = recalibrate_batch_norm(model, task.train)
    splits = [
        None
        if split is None
        else extract_features(
            model,
            split,
            head=backbone.head,
            batch_size=settings.feature_batch,
            cache=folder / "features",
            progress=progress,
        )
        for split in (task.train, task.test, task.val)
    ]
    results = linear_probe(
        splits[0],  # pyright: ignore[reportArgumentType]
        splits[1],  # pyright: ignore[reportArgumentType]
        val=splits[2],
        num_classes=task.num_classes,
        solver=settings.solver,
        seeds=seeds,
        standardize=settings.standardize,
        config=settings.linear,
        C=settings.C,
    )
    more = {"solver": settings.solver, "selection": "last"}
    features = splits[1].x  # pyright: ignore[reportOptionalMemberAccess]
    return [
        (_row(task, r.top1, r.mean_per_class) | more, np.asarray(jax.nn.softmax(features @ r.weights + r.bias)))
        for r in results
    ]


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _full(
    backbone: Backbone,
    task: ImageTask,
    seed: int,
    settings: StudySettings,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Any], np.ndarray, nnx.Module]:
    result = finetune(
        backbone.model,
        task,
        settings.full_config(task.name),
        masks=backbone.masks,
        head=backbone.head,
        kernels=settings.kernels,
        seed=seed,
        evaluate_every=None if task.val is None else 1,
        progress=progress,
    )
    selection = "last" if task.val is None else "validation"
    row = _row(task, result.top1, result.mean_per_class) | {"solver": "sgd", "selection": selection}
    return row, predict_probabilities(result.model, task.test), result.model


def _row(task: ImageTask, top1: float, mean_per_class: float) -> dict[str, Any]:
    value = top1 if task.metric == "top1" else mean_per_class
    return {"value": value, "top1": top1, "mean_per_class": mean_per_class}


def _relevant(regime: str, task: ImageTask, settings: StudySettings) -> dict[str, Any]:
    """Return the settings that a regime's result depends on."""
    if regime == "full":
        return {"config": dataclasses.asdict(settings.full_config(task.name)), "kernels": settings.kernels}
    config = dataclasses.asdict(settings.linear)
    if settings.solver == "lbfgs":
        config = {"batch_norm": config["batch_norm"], "C": settings.C}
    return {"config": config, "solver": settings.solver, "standardize": settings.standardize}


def _base_key(backbone: Backbone, task: ImageTask) -> str:
    digest = hashlib.sha256(model_hash(backbone.model).encode())
    for path, mask in sorted((backbone.masks or {}).items()):
        digest.update(path.encode() + np.packbits(np.asarray(mask, bool)).tobytes())
    splits = [split.fingerprint() for split in (task.train, task.val, task.test) if split is not None]
    digest.update(f"{splits} {task.num_classes} {task.metric} {backbone.head}".encode())
    return digest.hexdigest()
