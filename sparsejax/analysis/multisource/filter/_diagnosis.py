"""A table of every source: its distances, and why it was kept or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsejax.analysis.multisource._inputs import Sources

if TYPE_CHECKING:
    import pandas as pd


def diagnose(
    data: Sources, parts: dict[str, np.ndarray], q: np.ndarray, kept: np.ndarray, alone: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Describe every source.

    Args:
      data: the training set.
      parts: the matrix of each distance.
      q: float[N].
      kept: positions of the kept sources.
      alone: positions that each distance alone would keep.

    Returns:
      Data frame indexed by source: ``rows``; ``positive_rate`` (of the labels) and ``group_share`` (of the second
      group); ``q``; ``kept``; for each distance its mean to the kept sources (other than itself), and whether that
      distance alone would keep the source; ``reason``: for a dropped source, the distance that exceeds most what is
      usual among the kept sources, else empty.
    """
    import pandas as pd

    count = len(data.names)
    sizes = np.bincount(data.source)
    is_kept = np.isin(np.arange(count), kept)
    others = is_kept[None, :] & ~np.eye(count, dtype=bool)
    table = pd.DataFrame(
        {
            "rows": sizes,
            "positive_rate": np.bincount(data.source, data.y) / sizes,
            "group_share": np.bincount(data.source, data.a) / sizes,
            "q": q,
            "kept": is_kept,
        },
        index=pd.Index(data.names, name="source"),
    )
    excess = []
    for name, matrix in parts.items():
        mean = (matrix * others).sum(1) / np.maximum(others.sum(1), 1)
        table[name] = mean
        table[f"kept_by_{name}"] = np.isin(np.arange(count), alone[name])
        excess.append(mean - mean[is_kept].mean())
    worst = np.array(list(parts), dtype=object)[np.argmax(excess, axis=0)]
    table["reason"] = np.where(is_kept, "", worst)
    return table
