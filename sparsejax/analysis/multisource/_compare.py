"""Results of a study beside published ones."""

from __future__ import annotations

from typing import Any

import numpy as np

_KEYS = ["dataset", "n_sources", "n_malicious", "adversary", "learner", "classifier", "method", "metric"]


def compare(results: Any, published: Any) -> Any:
    """Compare means over seeds with published ones.

    Args:
      results: data frame of `run_study`.
      published: data frame with the same keys and ``mean``, ``std`` (population), ``count``.

    Returns:
      Data frame, one row for each key in both: ``mean``, ``published``, their ``difference``, ``two_se`` (two standard
      errors of the difference, as if the seeds were drawn anew), and ``agrees``: |difference| at most ``two_se`` or
      5e-4, the rounding of values published with three decimals.
    """
    groups = results.groupby(_KEYS)["value"]
    ours = groups.agg(mean="mean", std=lambda v: v.std(ddof=0), count="count").reset_index()
    both = ours.merge(published, on=_KEYS, suffixes=("", "_published"))
    both["difference"] = both["mean"] - both["mean_published"]
    variance = both["std"] ** 2 / both["count"] + both["std_published"] ** 2 / both["count_published"]
    both["two_se"] = 2 * np.sqrt(variance)
    both["agrees"] = both["difference"].abs() <= np.maximum(both["two_se"], 5e-4)
    return both.rename(columns={"mean_published": "published"})[
        [*_KEYS, "mean", "published", "difference", "two_se", "agrees"]
    ]
