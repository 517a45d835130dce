"""From a sparsity to exact integer counts of kept weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

import jax
import numpy as np

from sparsejax._checks import fail

Sparsity: TypeAlias = float | np.floating | np.ndarray | jax.Array


def as_fraction(function: str, operand: str, sparsity: Sparsity) -> Fraction:
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


def erk(sparsity: Sparsity, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Give small and narrow layers a higher density (Erdos-Renyi with kernel dimensions).

    k_l = min(n_l, eps * sum(shape_l)),  sum_l k_l = k;  density_l = eps * sum(shape_l) / prod(shape_l)

    ``eps`` is solved exactly: layers that would exceed density 1 become dense, and the rest shares what is left.
    Counts are rounded by largest remainder, so that the total is that of ``global_count``.

    Args:
      sparsity: fraction of zeros over all layers, in [0, 1), read as the decimal it prints as.
      shapes: kernel shape of each prunable layer, ``(in, out)`` or ``(*window, in, out)``.

    Returns:
      Number of weights kept in each layer, at least 1, exact Python integers.

    Raises:
      ValueError: the sparsity is outside [0, 1), or fewer weights remain than there are layers.

    Source: Evci et al. 2020, "RigL", section 3 (1), Erdos-Renyi-Kernel.

    >>> erk(0.9, [(3, 3, 1, 8), (3, 3, 8, 16), (64, 128), (128, 10)])
    [43, 85, 548, 394]
    """
    return proportional("erk", as_fraction("erk", "sparsity", sparsity), shapes, sum)


def er(sparsity: Sparsity, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Give narrow layers a higher density (Erdos-Renyi), without regard to the window.

    density_l = eps * (n_in + n_out) / (n_in * n_out), at most 1;  sum_l k_l = k

    Args:
      sparsity: fraction of zeros over all layers, in [0, 1), read as the decimal it prints as.
      shapes: kernel shape of each prunable layer, ``(in, out)`` or ``(*window, in, out)``.

    Returns:
      Number of weights kept in each layer, at least 1, exact Python integers.

    Raises:
      ValueError: the sparsity is outside [0, 1), or fewer weights remain than there are layers.

    Source: Mocanu et al. 2018 (SET), equation 1; Evci et al. 2020, "RigL", section 3 (1).

    >>> er(0.5, [(4, 4), (16, 16)])
    [16, 120]
    """

    def weight(shape: tuple[int, ...]) -> int:
        return (shape[-2] + shape[-1]) * math.prod(shape[:-2])

    return proportional("er", as_fraction("er", "sparsity", sparsity), shapes, weight)


def proportional(
    function: str, sparsity: Fraction, shapes: Sequence[tuple[int, ...]], weight: Callable[[tuple[int, ...]], int]
) -> list[int]:
    """Share ``global_count`` among layers in proportion to ``weight(shape)``, no layer above its size."""
    sizes = [math.prod(shape) for shape in shapes]
    total = kept(sparsity, sum(sizes))
    if total < len(shapes):
        fail(function, "sparsity", f"{total} weights left for {len(shapes)} layers", "at least one for each")
    weights = [weight(shape) for shape in shapes]
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in dense]
        if not rest:
            return sizes
        scale = Fraction(total - sum(sizes[i] for i in dense), sum(weights[i] for i in rest))
        full = {i for i in rest if scale * weights[i] > sizes[i]}
        if not full:
            ideal = [Fraction(sizes[i]) if i in dense else scale * weights[i] for i in range(len(shapes))]
            return largest_remainder(ideal, total)
        dense |= full


def largest_remainder(ideal: Sequence[Fraction], total: int) -> list[int]:
    """Round to integers of at least 1 that add up to ``total``, which ``ideal`` adds up to.

    >>> largest_remainder([Fraction(5, 2), Fraction(1, 4), Fraction(9, 4)], 5)
    [2, 1, 2]
    """
    counts = [max(1, math.floor(share)) for share in ideal]
    by_remainder = sorted(range(len(ideal)), key=lambda i: (counts[i] - ideal[i], i))
    for i in by_remainder[: max(0, total - sum(counts))]:
        counts[i] += 1
    while sum(counts) > total:  # layers raised to 1 took too much; the largest give it back
        counts[max(range(len(counts)), key=lambda i: (counts[i], -i))] -= 1
    return counts
