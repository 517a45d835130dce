"""A small comparison with everything in it: seeds, two kinds of groups, a validation split, a collapsed attribute."""

from __future__ import annotations

from typing import Any

import numpy as np

NAMES = ("a", "b", "side", "rare")


def make_inputs(samples: int = 600, seed: int = 0) -> dict[str, Any]:
    """Arguments of ``compare``; at 99 % the attribute "rare" is never predicted."""
    rng = np.random.default_rng(seed)
    groups = {"side": rng.integers(0, 2, samples), "hair": rng.choice(["black", "blond", "grey"], samples)}
    rate = np.array([0.5, 0.4, 0.5, 0.1]) * (0.7 + 0.6 * groups["side"][:, None])
    t = (rng.random((samples, 4)) < rate).astype(int)
    t[:, 2] = groups["side"]
    dense = 5.0 * t - 2.5 + rng.normal(size=(3, samples, 4))
    sparse = {s: dense + noise * rng.normal(size=dense.shape) for s, noise in ((0.5, 0.01), (0.9, 1.0), (0.99, 2.0))}
    sparse[0.99][..., 3] -= 20
    return {
        "dense": dense,
        "sparse": sparse,
        "labels": t,
        "groups": groups,
        "train_labels": t,
        "train_groups": groups,
        "val": {"dense": dense, "sparse": sparse, "labels": t},
        "attribute_names": NAMES,
    }
