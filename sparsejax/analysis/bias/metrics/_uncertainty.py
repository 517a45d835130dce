"""Uncertain outputs, and the samples that they point at."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._arrays import ArrayLike, NumberLike, read_number, read_numbers
from sparsejax.analysis.bias.metrics._arrays import one_of, probabilities, scores, sigmoid
from sparsejax.analysis.bias.metrics._measured import divide

Kind = Literal["logits", "probs"]


def uncertain_cells(function: str, values: ArrayLike, band: NumberLike, kind: Kind) -> np.ndarray:
    """Return bool[n, K]: |p - 0.5| < band, compared on logits for logits."""
    one_of(function, "kind", kind, ("logits", "probs"))
    half = read_number(function, "band", band)
    if not 0 < half <= 0.5:
        fail(function, "band", f"value {band}", "a number above 0 and up to 0.5")
    if kind == "probs":
        return np.abs(probabilities(function, "scores", values) - 0.5) < half
    limit = np.inf if half == 0.5 else np.log(divide(np.array(0.5 + half), np.array(0.5 - half)))
    return np.abs(scores(function, "scores", values)) < limit


def uncertainty_score(logits: ArrayLike) -> np.ndarray:
    """Return 1 - 2 |p - 0.5|, in [0, 1]: 1 is a coin toss, 0 a certain answer.

    >>> uncertainty_score([0.0]).tolist()
    [1.0]
    """
    z = read_numbers("uncertainty_score", "logits", logits)
    p = sigmoid(scores("uncertainty_score", "logits", z))
    return (1.0 - 2.0 * np.abs(p - 0.5)).reshape(z.shape)


def uncertainty(values: ArrayLike, *, band: NumberLike = 0.4, kind: Kind = "logits") -> np.ndarray:
    """Measure the share of the samples on which each output is uncertain.

    u = mean over samples of [ |p - 0.5| < band ], strictly;  for logits |z| < ln((0.5 + band) / (0.5 - band))

    The default 0.4 is 0.1 < p < 0.9, |z| < ln 9 = 2.197; "high uncertainty" is band=0.1, 0.4 < p < 0.6. In
    [0, 1]; lower is more decided, which is not the same as better.

    Args:
      values: logits, or probabilities with kind="probs"; [n] or [n, K].
      band: half width of the band around p = 0.5, in (0, 0.5].
      kind: "logits" or "probs", the kind of ``values``.

    Returns:
      float64[K].

    Raises:
      ValueError: NaN, probabilities outside [0, 1], or a band out of range.

    Source: Iofinova et al. 2023, released code.

    >>> uncertainty([0.0, 2.19, 2.2, -5.0]).tolist()
    [0.5]
    """
    return uncertain_cells("uncertainty", values, band, kind).mean(axis=0)


class SusceptibleSamples(NamedTuple):
    """The result of `susceptible_samples`.

    Attributes:
      mask: bool[n, K], the cells (sample, attribute) that pruning may flip.
      score: float64[n, K], in [0, 1]; higher is more exposed.
      share: fraction of all cells in the mask.
    """

    mask: np.ndarray
    score: np.ndarray
    share: float


def susceptible_samples(dense_logits: ArrayLike, *, band: NumberLike = 0.4) -> SusceptibleSamples:
    """Find, from the dense model alone, the decisions that pruning is likely to change.

    susceptible = |p_dense - 0.5| < band

    Args:
      dense_logits: outputs of the dense model, [n] or [n, K].
      band: half width of the band of probabilities around 0.5.

    Returns:
      `SusceptibleSamples`. How many flips the mask covers is measured by `flip_coverage`; compare that with
      the coverage between two dense models.

    Raises:
      ValueError: NaN, or a band out of range.

    Source: Iofinova et al. 2023 name the dense model's uncertainty as the criterion for such samples; this mask and
    its default width are an operational form of that.

    >>> susceptible_samples([0.0, 5.0]).mask[:, 0].tolist()
    [True, False]
    """
    mask = uncertain_cells("susceptible_samples", dense_logits, band, "logits")
    return SusceptibleSamples(mask, uncertainty_score(dense_logits).reshape(mask.shape), float(mask.mean()))
