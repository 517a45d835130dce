"""Ratios of times in words: the median, its quartiles, the number of rounds, and what they allow to say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ratio_text(ratios: Sequence[float]) -> str:
    """Say how much faster the sparse form is.

    Args:
      ratios: time of the dense form divided by that of the sparse one, a number for each round.

    Returns:
      Words with the median, the quartiles and the number of rounds. Where the quartiles lie on both sides of 1, the
      words are that no difference was measured.

    >>> ratio_text([2.0, 2.2, 2.1, 1.9])
    '2.05x faster (quartiles 1.98 to 2.12, 4 rounds)'
    >>> ratio_text([0.9, 1.1, 1.2, 0.95])
    'no difference was measured (ratio 1.02, quartiles 0.94 to 1.12, 4 rounds)'
    """
    if not ratios:
        return "not measured"
    first, median, third = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
    rounds = f"{len(ratios)} round" + "s" * (len(ratios) != 1)
    if first <= 1 <= third:
        return f"no difference was measured (ratio {median:.2f}, quartiles {first:.2f} to {third:.2f}, {rounds})"
    if median < 1:
        first, median, third = 1 / third, 1 / median, 1 / first
        return f"{median:.2f}x slower (quartiles {first:.2f} to {third:.2f}, {rounds})"
    return f"{median:.2f}x faster (quartiles {first:.2f} to {third:.2f}, {rounds})"
