"""The inputs of a comparison, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, ColumnsLike, NumberLike, read_array, read_names, read_numbers
from sparsejax.analysis.bias.metrics._arrays import labels, one_of, probabilities, same_columns, same_length, scores
from sparsejax.analysis.bias.metrics._groups import Group, read_groups

FUNCTION = "compare"
SparseLike: TypeAlias = ArrayLike | Mapping[Any, ArrayLike]
"""Outputs of one sparse model, or a mapping from its sparsity, or (strategy, sparsity), to them."""
# Probabilities of exactly 0 and 1 have no logit.
_CLIP = 1e-7


@dataclass(frozen=True)
class ModelOutputs:
    """The outputs of one configuration.

    Attributes:
      role: "dense" or "sparse".
      sparsity: fraction of zeros, NaN if it is not known; 0 for the dense model.
      strategy: how it was pruned, "" if it is not known.
      logits: float64[R, n, K].
      val_logits: float64[R, m, K] on the validation split, or None.
    """

    role: str
    sparsity: float
    strategy: str
    logits: np.ndarray
    val_logits: np.ndarray | None

    @property
    def label(self) -> str:
        """Short name for tables and charts."""
        return "dense" if self.role == "dense" else level_name(self.sparsity, self.strategy)


def level_name(sparsity: float, strategy: str) -> str:
    """Return the name of a sparse model, "90 % GMP-RI"; "sparse" where the sparsity is unknown."""
    level = "sparse" if np.isnan(sparsity) else f"{100 * sparsity:.4g} %"
    return f"{level} {strategy}".strip()


@dataclass(frozen=True)
class Inputs:
    """The arguments of `compare`; see there."""

    dense: ModelOutputs
    sparse: tuple[ModelOutputs, ...]
    y_true: np.ndarray
    groups: tuple[Group, ...]
    y_train: np.ndarray | None
    train_groups: tuple[Group, ...] | None
    y_val: np.ndarray | None
    attribute_names: tuple[str, ...]
    sample_ids: tuple[str, ...]
    images: np.ndarray | None
    clusters: np.ndarray | None
    seeds: tuple[str, ...]

    def dense_seed(self, model: ModelOutputs, seed: int) -> int:
        """Return which dense model a run is compared with: that of the same seed, or the only one."""
        return seed if len(self.dense.logits) == len(model.logits) else 0


def read_models(
    dense: ArrayLike, sparse: SparseLike, val: Mapping[str, Any] | None, kind: str, sparsity: NumberLike | None
) -> tuple[ModelOutputs, tuple[ModelOutputs, ...]]:
    """Return the dense and the sparse models.

    Raises:
      ValueError: shapes disagree, NaN, or values that are not of the kind.
    """
    one_of(FUNCTION, "kind", kind, ("logits", "probs"))
    if val is not None:
        unknown = sorted({"dense", "sparse", "labels"} ^ set(val))
        if unknown:
            fail(FUNCTION, "val", f"keys {sorted(val)}", "exactly dense, sparse and labels")
    dense_val = None if val is None else _population("val['dense']", val["dense"], kind)
    first = ModelOutputs("dense", 0.0, "", _population("dense", dense, kind), dense_val)
    by_level = list(sparse.items()) if isinstance(sparse, Mapping) else [(sparsity, sparse)]
    if not by_level:
        fail(FUNCTION, "sparse", "no model", "at least one")
    others = []
    for key, values in by_level:
        strategy, level = key if isinstance(key, tuple) else ("", key)
        operand = f"sparse[{key!r}]" if isinstance(sparse, Mapping) else "sparse"
        val_logits = None
        if val is not None:
            val_values = _validation_of(key, isinstance(sparse, Mapping), val["sparse"])
            val_logits = _population(f"val of {operand}", val_values, kind)
        logits = _population(operand, values, kind)
        others.append(ModelOutputs("sparse", _level(operand, level), str(strategy), logits, val_logits))
    others.sort(key=lambda model: (model.strategy, model.sparsity))
    for model in others:
        _match(first, model)
    _refuse_probabilities([first, *others], kind)
    return first, tuple(others)


def _validation_of(key: Any, is_mapping: bool, values: Any) -> Any:
    if not is_mapping:
        return values
    if not isinstance(values, Mapping) or key not in values:
        fail(FUNCTION, "val['sparse']", f"no entry {key!r}", "the keys of sparse")
    return values[key]


def _level(operand: str, level: NumberLike | None) -> float:
    if level is None:
        return float("nan")
    array, missing = read_array(FUNCTION, operand, level)
    if array.ndim or missing.any() or array.dtype.kind not in "iuf" or not 0 <= array < 1:
        fail(FUNCTION, operand, f"sparsity {level!r}", "a fraction of zeros in [0, 1), or (strategy, fraction)")
    return float(array)


def _population(operand: str, values: ArrayLike, kind: str) -> np.ndarray:
    """Return float64[R, n, K] from [n], [n, K] or [R, n, K]."""
    array = read_numbers(FUNCTION, operand, values)
    runs = array if array.ndim == 3 else array[None]
    if len(runs) == 0:
        fail(FUNCTION, operand, f"shape {array.shape}", "(n,), (n, K) or (R, n, K), with nothing empty")
    if kind == "logits":
        return np.stack([scores(FUNCTION, operand, run) for run in runs])
    clipped = np.clip([probabilities(FUNCTION, operand, run) for run in runs], _CLIP, 1 - _CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def _match(dense: ModelOutputs, model: ModelOutputs) -> None:
    name = f"sparse model {model.label!r}"
    if model.logits.shape[1:] != dense.logits.shape[1:]:
        got = f"{model.logits.shape[1]} samples and {model.logits.shape[2]} attributes"
        fail(FUNCTION, name, got, f"{dense.logits.shape[1]} and {dense.logits.shape[2]}, as dense")
    runs = {len(dense.logits), len(model.logits)}
    if len(runs) > 1 and 1 not in runs:
        fail(FUNCTION, name, f"{len(model.logits)} runs", f"1 or {len(dense.logits)}, as dense")
    for each in (dense, model):
        if each.val_logits is not None and len(each.val_logits) != len(each.logits):
            got = f"{len(each.val_logits)} runs in validation"
            fail(FUNCTION, f"model {each.label!r}", got, f"{len(each.logits)}, as in evaluation")


def _refuse_probabilities(models: Sequence[ModelOutputs], kind: str) -> None:
    if kind == "logits" and all(m.logits.min() >= 0 and m.logits.max() <= 1 for m in models):
        hint = "These look like probabilities: pass kind='probs'."
        fail(FUNCTION, "dense and sparse", "all values in [0, 1]", "logits", hint)


def read_labels(values: ArrayLike, missing: NumberLike | None, dense: ModelOutputs) -> np.ndarray:
    """Return the evaluation labels, matched with the models."""
    t = labels(FUNCTION, "labels", values, missing=missing)
    if t.shape != dense.logits.shape[1:]:
        expected = f"shape {dense.logits.shape[1:]}, samples and attributes as dense"
        fail(FUNCTION, "labels", f"shape {t.shape}", expected)
    return t


def read_training(
    train_labels: ArrayLike | None,
    train_groups: ColumnsLike | None,
    groups: Sequence[Group],
    columns: int,
    missing: NumberLike | None,
) -> tuple[np.ndarray | None, tuple[Group, ...] | None]:
    """Return labels and groups of the training split, or None."""
    for operand, present in (("train_labels", train_labels is not None), ("groups", len(groups) > 0)):
        if train_groups is not None and not present:
            fail(FUNCTION, operand, "no value", f"{operand.removeprefix('train_')}, as train_groups need them")
    if train_labels is None:
        return None, None
    train = labels(FUNCTION, "train_labels", train_labels, missing=missing)
    if train.shape[1] != columns:
        fail(FUNCTION, "train_labels", f"{train.shape[1]} columns", f"{columns}, as labels")
    if train_groups is None:
        return train, None
    names = [group.name for group in groups]
    read = read_groups(FUNCTION, "train_groups", train_groups, names)
    if [group.name for group in read] != names:
        fail(FUNCTION, "train_groups", f"names {[group.name for group in read]}", f"{names}, as groups")
    same_length(FUNCTION, train_labels=train, train_groups=read[0].codes)
    return train, tuple(in_train.like(group) for in_train, group in zip(read, groups, strict=True))


def read_validation(
    val: Mapping[str, Any] | None, models: Sequence[ModelOutputs], missing: NumberLike | None
) -> np.ndarray | None:
    """Return the validation labels, matched with the models."""
    if val is None:
        return None
    t = labels(FUNCTION, "val['labels']", val["labels"], missing=missing)
    for model in models:
        assert model.val_logits is not None
        same_length(FUNCTION, **{"val['labels']": t, f"val of {model.label!r}": model.val_logits[0]})
        same_columns(FUNCTION, **{"val['labels']": t, f"val of {model.label!r}": model.val_logits[0]})
    return t


def names_or_default(operand: str, names: Iterable[Any] | None, count: int, default: str) -> tuple[str, ...]:
    """Return ``count`` different names."""
    return read_names(FUNCTION, operand, [f"{default} {i}" for i in range(count)] if names is None else names, count)


def read_images(images: ArrayLike | None, samples: int) -> np.ndarray | None:
    """Return images as uint8[n, H, W] or [n, H, W, 3]; floats are in [0, 1]."""
    if images is None:
        return None
    array = read_array(FUNCTION, "images", images)[0]
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or len(array) != samples or (array.ndim == 4 and array.shape[-1] != 3):
        fail(FUNCTION, "images", f"shape {array.shape}", f"({samples}, H, W), (..., 1) or (..., 3)")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        fail(FUNCTION, "images", f"dtype {array.dtype}", "uint8, or finite floats, 0 black and 1 white")
    return np.round(255 * np.clip(array, 0, 1)).astype(np.uint8)
