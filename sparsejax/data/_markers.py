"""Markers ("backdoors"): a visible sign on chosen images, which shows how far a model relies on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike

# Share of the pixels that the square covers: 32 pixels a side of 224.
_SQUARE_AREA = 0.02
_LUMA = np.array([0.299, 0.587, 0.114])


def marked_samples(labels: ArrayLike, negatives: float, positives: float, *, seed: int) -> np.ndarray:
    """Choose, without replacement, the samples that get a marker.

    round(q0 * n_negative) negatives and round(q1 * n_positive) positives

    Args:
      labels: [n] in {0, 1}, of the attribute that the marker is correlated with.
      negatives: q0, share of the negatives, in [0, 1].
      positives: q1, share of the positives, in [0, 1].
      seed: of the choice, at least 0.

    Returns:
      bool[n].

    Raises:
      ValueError: labels that are not {0, 1}, or a share out of range.

    Source: Iofinova et al. 2023, "Bias in Pruned Vision Models", released code. Training there uses (0.05, 0.95) or
    (0.35, 0.65), evaluation (0.5, 0.5).

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> chosen = marked_samples(labels, 0.25, 1.0, seed=0)
    >>> int(chosen[labels == 0].sum()), int(chosen[labels == 1].sum())
    (1, 2)
    """
    t = np.asarray(labels)
    if t.ndim != 1 or not np.isin(t, (0, 1)).all():
        fail("marked_samples", "labels", f"shape {t.shape} or other values", "(n,) in {0, 1}")
    for operand, share in (("negatives", negatives), ("positives", positives)):
        if not 0 <= share <= 1:
            fail("marked_samples", operand, f"value {share}", "a share in [0, 1]")
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(t), bool)
    for value, share in ((0, negatives), (1, positives)):
        candidates = np.flatnonzero(t == value)
        chosen[rng.choice(candidates, round(share * len(candidates)), replace=False)] = True
    return chosen


def grayscale(images: np.ndarray) -> np.ndarray:
    """Return colour images as three equal channels, the marker that is applied before any other transform.

    y = 0.299 r + 0.587 g + 0.114 b  (ITU-R 601, as Pillow)

    Args:
      images: [..., H, W, 3]; integers are rounded.

    Returns:
      Array of the same shape and dtype.

    Raises:
      ValueError: not three channels.

    >>> grayscale(np.array([[[255, 0, 0]]], np.uint8)).tolist()
    [[[76, 76, 76]]]
    """
    if images.ndim < 3 or images.shape[-1] != 3:
        fail("grayscale", "images", f"shape {images.shape}", "(..., H, W, 3)")
    luma = images.astype(np.float64) @ _LUMA
    if images.dtype.kind in "ui":
        luma = np.round(luma)
    return np.repeat(luma[..., None], 3, axis=-1).astype(images.dtype)


def corner_square(
    images: np.ndarray, *, side: int | None = None, color: float | Sequence[float] = (1.0, 1.0, 0.0)
) -> np.ndarray:
    """Return images with a square in the top-left corner, yellow by default.

    side = round(sqrt(0.02 * H * W)):  32 pixels for 224 x 224

    Apply it after cropping and flipping. On images normalised to (x - 0.5) / 0.5, yellow is (1, 1, -1).

    Args:
      images: [..., H, W, C].
      side: pixels; the published size if None.
      color: one number, or C of them, on the scale of the images.

    Returns:
      A new array of the same shape and dtype.

    Raises:
      ValueError: a side that does not fit, or a colour of another number of channels.

    Source: Iofinova et al. 2023, "Bias in Pruned Vision Models", released code.

    >>> corner_square(np.zeros((1, 4, 4, 1)), side=2, color=1.0).sum()
    np.float64(4.0)
    """
    height, width, channels = images.shape[-3:]
    size = round(float(np.sqrt(_SQUARE_AREA * height * width))) if side is None else side
    if not 1 <= size <= min(height, width):
        fail("corner_square", "side", f"value {size}", f"1 to {min(height, width)} pixels")
    values = np.asarray(color, images.dtype)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != channels):
        fail("corner_square", "color", f"shape {values.shape}", f"one number or {channels}")
    marked = images.copy()
    marked[..., :size, :size, :] = values
    return marked
