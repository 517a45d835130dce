"""From a sparsity to exact integer counts of kept weights."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from sparsejax._checks import fail

Sparsity = float | np.floating | jax.Array


def as_fraction(function: str, operand: str, sparsity: Any) -> Fraction:
    """Read a sparsity as the decimal number that it prints as, exactly.

    A float32 0.9 is meant to be 9/10, not 0.89999998; on 10 million weights the two differ by a count.

    Args:
      function: public function named in the error.
      operand: argument named in the error.
      sparsity: Python, NumPy or JAX number.

    Returns:
      Fraction in [0, 1).

    Raises:
      ValueError: the number is outside [0, 1) or not a number.

    >>> as_fraction("uniform", "sparsity", np.float32(0.9))
    Fraction(9, 10)
    """
    value = np.asarray(sparsity)
    if value.ndim or not np.issubdtype(value.dtype, np.number) or np.iscomplexobj(value):
        fail(function, operand, f"value {sparsity!r}", "one real number in [0, 1)")
    if not 0 <= value < 1:
        fail(function, operand, f"value {value}", "a fraction of zeros in [0, 1)")
    return Fraction(str(value[()]))


def kept(sparsity: Fraction, size: int) -> int:
    """Return the number of weights kept: ``k = n - round_half_even(s * n)``, at least 1.

    >>> kept(Fraction(9, 10), 25_502_912), kept(Fraction(99, 100), 3)
    (2550291, 1)
    """
    return max(1, size - round(sparsity * size))


def uniform(sparsity: Sparsity, sizes: Sequence[int]) -> list[int]:
    """Give every layer the same sparsity.

    k_l = max(1, n_l - round_half_even(s * n_l))

    Args:
      sparsity: fraction of zeros, in [0, 1), read as the decimal it prints as.
      sizes: number of weights of each prunable layer, n_l.

    Returns:
      Number of weights kept in each layer, exact Python integers.

    Raises:
      ValueError: the sparsity is outside [0, 1).

    Source: Gale et al. 2019, "The state of sparsity in deep neural networks", section 3 (uniform sparsity).

    >>> uniform(0.9, [72, 1152])
    [7, 115]
    """
    fraction = as_fraction("uniform", "sparsity", sparsity)
    return [kept(fraction, size) for size in sizes]


def global_count(sparsity: Sparsity, sizes: Sequence[int]) -> int:
    """Give all layers together one count; the scores decide how it is shared.

    k = max(1, n - round_half_even(s * n)),  n = sum_l n_l

    Args:
      sparsity: fraction of zeros over all layers, in [0, 1), read as the decimal it prints as.
      sizes: number of weights of each prunable layer, n_l.

    Returns:
      Number of weights kept in all layers together. A single layer may lose all of its weights.

    Raises:
      ValueError: the sparsity is outside [0, 1).

    Source: Peste et al. 2021, "AC/DC" (one threshold over all prunable weights, no normalisation per layer).

    >>> global_count(0.9, [72, 1152, 8192, 1280])
    1070
    """
    return kept(as_fraction("global_count", "sparsity", sparsity), sum(sizes))
