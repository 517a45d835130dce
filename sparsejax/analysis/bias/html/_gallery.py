"""The gallery: samples whose decision changed or did not, chosen here and filtered in the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsejax._extras import require
from sparsejax.analysis.bias.audit._comparison import Comparison, EvaluatedRun
from sparsejax.analysis.bias.metrics._arrays import sigmoid
from sparsejax.analysis.bias.metrics._populations import pie

# Bounds that keep the page small: entries of text, thumbnails, bytes of thumbnails, pixels of a side.
_ENTRIES = 6000
_PER_SECTION = 10
_THUMBNAILS = 200
_THUMBNAIL_BYTES = 12_000_000
_SIDE = 96
OUTCOMES = (
    "✗ dense right → sparse wrong",
    "✓ dense wrong → sparse right",
    "✗ both wrong",
    "✓ both right",
)


class _Entry(NamedTuple):
    """One card: indices of model, attribute, sample and section (outcome * 2 + uncertain), and its numbers."""

    model: int
    attribute: int
    sample: int
    section: int
    label: int
    p_dense: float
    p_sparse: float
    votes_dense: int
    votes_sparse: int
    is_pie: int
    order: int


def gallery_data(comparison: Comparison, *, hash_ids: bool, folder: Path | None) -> dict[str, Any]:
    """Return the data of the cards, which the script of the page makes.

    Images are thumbnails in the page or, with a ``folder``, files written there.
    """
    inputs = comparison.inputs
    entries = sorted(
        _choose(comparison), key=lambda e: (e.model, e.attribute, e.section, -abs(e.p_dense - e.p_sparse), e.sample)
    )
    samples = sorted({entry.sample for entry in entries})
    return {
        "models": [model.label for model in inputs.sparse],
        "runs": [[len(inputs.dense.logits), len(model.logits)] for model in inputs.sparse],
        "attributes": inputs.attribute_names,
        "groups": [{"name": group.name, "levels": group.levels} for group in inputs.groups],
        "outcomes": OUTCOMES,
        "samples": {s: [_name(inputs.sample_ids[s], hash_ids), _levels(comparison, s)] for s in samples},
        "entries": entries,
        "images": _thumbnails(comparison, entries) if folder is None else _files(comparison, entries, folder),
    }


def _name(sample_id: str, hash_ids: bool) -> str:
    return hashlib.sha256(sample_id.encode()).hexdigest()[:12] if hash_ids else sample_id


def _levels(comparison: Comparison, sample: int) -> list[int]:
    return [int(group.codes[sample]) for group in comparison.inputs.groups]


def _choose(comparison: Comparison) -> Iterator[_Entry]:
    inputs, rng = comparison.inputs, np.random.default_rng(comparison.settings.random_state)
    attributes = inputs.y_true.shape[1]
    per_section = max(1, min(_PER_SECTION, _ENTRIES // (len(inputs.sparse) * attributes * 16)))
    dense_runs = comparison.runs_of(inputs.dense)
    dense_votes = np.sum([run.y_pred for run in dense_runs], axis=0)
    unsure = comparison.score_measures[0, 0].uncertain
    p_dense = sigmoid(inputs.dense.logits[0])
    for m, model in enumerate(inputs.sparse):
        runs = comparison.runs_of(model)
        votes = np.sum([run.y_pred for run in runs], axis=0)
        population = min(len(runs), len(dense_runs)) > 1
        exemplar = _exemplars(dense_runs, runs) if population else np.zeros_like(unsure)
        p_sparse = sigmoid(model.logits[0])
        t = inputs.y_true
        dense_right, sparse_right = dense_runs[0].y_pred == t, runs[0].y_pred == t
        outcome = np.where(dense_right, np.where(sparse_right, 3, 0), np.where(sparse_right, 1, 2))
        kind = np.where(np.isnan(t), -1, 2 * outcome + unsure)
        order = rng.permutation(len(t))
        for a in range(attributes):
            moved = np.abs(p_dense[:, a] - p_sparse[:, a])
            for k in range(2 * len(OUTCOMES)):
                for s in _pick(np.flatnonzero(kind[:, a] == k), moved, order, per_section):
                    numbers = (int(t[s, a]), round(float(p_dense[s, a]), 3), round(float(p_sparse[s, a]), 3))
                    counted = (int(dense_votes[s, a]), int(votes[s, a]), int(exemplar[s, a]))
                    yield _Entry(m, a, s, k, *numbers, *counted, int(order[s]))


def _pick(samples: np.ndarray, moved: np.ndarray, order: np.ndarray, size: int) -> list[int]:
    """Return the ``size`` samples that moved most, and ``size`` at random, without duplicates."""
    most = samples[np.lexsort((samples, -moved[samples]))[:size]]
    drawn = samples[np.argsort(order[samples])[:size]]
    return [int(s) for s in dict.fromkeys([*most, *drawn])]


def _exemplars(dense_runs: list[EvaluatedRun], runs: list[EvaluatedRun]) -> np.ndarray:
    stacks = [np.stack([run.y_pred for run in each]).astype(np.int8) for each in (dense_runs, runs)]
    return pie(*stacks)


def _thumbnails(comparison: Comparison, entries: list[_Entry]) -> dict[int, str]:
    """Return PNG data URIs of at most 200 samples: flips first, then by how far the probability moved."""
    if comparison.inputs.images is None:
        return {}
    ranked = sorted(entries, key=lambda e: (e.section // 2 > 1, -abs(e.p_dense - e.p_sparse), e.sample))
    result: dict[int, str] = {}
    size = 0
    for sample in dict.fromkeys(entry.sample for entry in ranked):
        if len(result) == _THUMBNAILS or size > _THUMBNAIL_BYTES:
            break
        result[sample] = _data_uri(comparison.inputs.images[sample])
        size += len(result[sample])
    return result


def _files(comparison: Comparison, entries: list[_Entry], folder: Path) -> dict[int, str]:
    """Write a PNG file in full size for every sample of the gallery, and return the names."""
    if comparison.inputs.images is None:
        return {}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    result = {sample: f"images/{sample}.png" for sample in sorted({entry.sample for entry in entries})}
    for sample, name in result.items():
        (folder / name).write_bytes(_png(comparison.inputs.images[sample]))
    return result


def _data_uri(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(image, _SIDE)).decode()


def _png(image: np.ndarray, most: int | None = None) -> bytes:
    """Return the image as a PNG file, no side longer than ``most`` pixels."""
    picture = require("PIL.Image", "BiasAudit.to_html").fromarray(image)
    if most is not None:
        picture.thumbnail((most, most))
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
