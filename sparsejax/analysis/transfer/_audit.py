"""From trained networks to an audit of bias: runs are read, predict, and are compared. Nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sparsejax._checks import fail
from sparsejax._files import PathLike
from sparsejax.analysis.bias import BiasAudit, compare, one_vs_rest
from sparsejax.analysis.transfer.runs._outputs import RunOutputs, predict_probabilities, read_outputs
from sparsejax.data import ImageTask

_FUNCTION = "audit_runs"
_LOWEST = 1e-12  # of a probability, before its logarithm


class RunPath(NamedTuple):
    """A trained network, or its stored probabilities.

    Attributes:
      path: folder of a training run, or a file that `transfer` wrote into its folder ``outputs``.
      sparsity: for tables; None takes that of the run.
    """

    path: Path
    sparsity: float | None = None


def run_outputs(run: RunPath, task: ImageTask) -> RunOutputs:
    """Return the probabilities of a run on the test split of a task.

    Raises:
      FileNotFoundError: no such run.
      ValueError: a network that does not take the images, or has another number of classes; stored probabilities of
        another split.
    """
    shown = f"run {str(run.path)!r}"
    outputs = _predict(run.path, shown, task) if run.path.is_dir() else read_outputs(_FUNCTION, run.path)
    if outputs.probs.shape != (len(task.test), task.num_classes):
        got = f"probabilities of shape {outputs.probs.shape}"
        fail(_FUNCTION, shown, got, f"{(len(task.test), task.num_classes)}, the images and classes of {task.name}")
    if not np.array_equal(outputs.labels, task.test.labels):
        fail(_FUNCTION, shown, "other labels", f"those of the test split of {task.name}", "Was it run on other data?")
    return outputs if run.sparsity is None else outputs._replace(sparsity=run.sparsity)


def _predict(path: Path, shown: str, task: ImageTask) -> RunOutputs:
    from sparsejax import models, train

    model = train.load_model(path)
    fixed = train.fix_masks(model, kernels="dense", keep_dense=(models.find_head(model),))
    try:
        probs = predict_probabilities(model, task.test)
    except (TypeError, ValueError) as error:  # of a layer that gets images of another shape
        shape = task.test.images(np.arange(1)).shape[1:]
        got = f"a network that does not take images {shape} ({' '.join(str(error).split())[:120]})"
        fail(_FUNCTION, shown, got, f"one that takes those of {task.name}")
    return RunOutputs(probs, task.test.labels, round(fixed.sparsity(), 4))


def audit_runs(
    dense: Sequence[RunPath],
    sparse: Sequence[RunPath],
    task: ImageTask,
    groups: Mapping[str, ArrayLike] | None = None,
    *,
    class_names: Iterable[str] | None = None,
    train_groups: Mapping[str, ArrayLike] | None = None,
    **options: Any,
) -> BiasAudit:
    """Compare dense and sparse runs on the test split of a task; nothing is trained.

    Each class becomes an attribute (one against the rest, see `one_vs_rest`).

    Args:
      dense: runs of the dense network, one per seed.
      sparse: runs of sparse ones; those of one sparsity are its seeds.
      task: the data; the classes of its training split say how often each occurs.
      groups: arrays [N] for the test split, by name.
      class_names: of the classes; numbers if None.
      train_groups: the same for the training split; without them, the test split says which side of a group a class
        favours.
      options: of `compare`.

    Returns:
      `BiasAudit`.

    Raises:
      ValueError: no run; runs that do not fit the data (see `run_outputs`); numbers of seeds that differ.

    Source: Iofinova, Peste and Alistarh 2023, "Bias in Pruned Vision Models".
    """
    if not dense or not sparse:
        fail(_FUNCTION, "sparse" if dense else "dense", "no run", "at least one")
    dense_outputs = [run_outputs(run, task) for run in dense]
    levels: dict[float, list[RunOutputs]] = {}
    for run in sparse:
        outputs = run_outputs(run, task)
        levels.setdefault(outputs.sparsity, []).append(outputs)
    for level, outputs in levels.items():
        if len(outputs) != len(dense_outputs):
            got = f"{len(outputs)} run{'s' * (len(outputs) != 1)} at {level:g}"
            fail(_FUNCTION, "sparse", got, f"{len(dense_outputs)}, one for each dense run")
    names = [str(k) for k in range(task.num_classes)] if class_names is None else list(class_names)
    one_hot = np.eye(task.num_classes, dtype=np.int8)
    training = groups is None or train_groups is not None
    return compare(
        _columns(dense_outputs),
        {level: _columns(outputs) for level, outputs in sorted(levels.items())},
        one_hot[task.test.labels],
        groups,
        train_labels=one_hot[task.train.labels] if training else None,
        train_groups=train_groups,
        attribute_names=names,
        **options,
    )


def _columns(runs: Sequence[RunOutputs]) -> np.ndarray:
    """Logits of each class against the best other one, float64[R, N, K]."""
    return np.stack([one_vs_rest(np.log(np.maximum(run.probs, _LOWEST)), run.labels).logits for run in runs])


def predictions_table(
    dense: RunOutputs, sparse: RunOutputs, groups: Mapping[str, ArrayLike] | None = None
) -> dict[str, list[Any]]:
    """Return one row per test picture, columns that `multisource filter --data csv:FILE` reads.

    Columns: the groups; ``label``; ``dense_class`` and ``sparse_class``; ``dense_probability`` and
    ``sparse_probability`` of the true class; ``flipped``, whether the two decide differently.
    """
    rows = np.arange(len(dense.labels))
    classes = dense.probs.argmax(1), sparse.probs.argmax(1)
    columns: dict[str, list[Any]] = {name: np.asarray(values).tolist() for name, values in (groups or {}).items()}
    columns |= {"label": dense.labels.tolist(), "dense_class": classes[0].tolist(), "sparse_class": classes[1].tolist()}
    for name, run in (("dense", dense), ("sparse", sparse)):
        columns[f"{name}_probability"] = run.probs[rows, dense.labels].astype(float).tolist()
    columns["flipped"] = np.where(classes[0] != classes[1], "yes", "no").tolist()
    return columns


def read_run(word: str) -> RunPath:
    """Read ``[SPARSITY=]PATH``.

    Raises:
      FileNotFoundError: no such folder or file.
      ValueError: a sparsity that is not a fraction in [0, 1).
    """
    level, separator, text = word.rpartition("=")
    path: PathLike = Path(text)
    if not path.exists():
        expected = "the folder of a training run, or a file of probabilities"
        fail(_FUNCTION, "run", f"value {text!r}", expected, error=FileNotFoundError)
    if not separator:
        return RunPath(path)
    try:
        sparsity = float(level)
    except ValueError:
        sparsity = -1.0
    if not 0 <= sparsity < 1:
        fail(_FUNCTION, "run", f"value {word!r}", "SPARSITY=PATH with a fraction in [0, 1)")
    return RunPath(path, sparsity)
