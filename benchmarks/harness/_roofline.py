"""How near a product is to what the machine allows, and which limit binds."""

from __future__ import annotations

import dataclasses
import math

from ..cases._case import BACKWARD, Case
from ._peak import Peak

_FLOAT, _INT = 4, 4


@dataclasses.dataclass(frozen=True)
class Limit:
    """One product against the machine.

    Attributes:
      peak_fraction: useful operations on the nonzeros, of the peak of fused multiply-adds.
      limit: "fma", or the level whose bandwidth binds.
      limit_fraction: time at that limit over time taken.
      resident: the level that holds all that the product touches.
    """

    peak_fraction: float
    limit: str
    limit_fraction: float
    resident: str


def traffic(case: Case, product: str) -> int:
    """Bytes that a product cannot avoid touching: activations, stored values and indices, each once.

    Args:
      case: float32 activations and values, int32 indices.
      product: "forward" (x, y), "input_grad" (two gradients, and the permutation to column order), "weight_grad" (x,
        gradient of y, gradient of the values) or "backward" (both of them, the gradient of y once).
    """
    both = product == BACKWARD
    activations = math.prod(case.shape.x) * (2 if both else 1) + math.prod(case.shape.y)
    transposed = both or product == "input_grad"
    columns = math.prod(case.shape.kernel[:-1]) if transposed else case.shape.out_features
    integers = case.nnz * (2 if transposed else 1) + columns + 1
    return _FLOAT * (activations + case.nnz * (2 if both else 1)) + _INT * integers


def limit(case: Case, product: str, seconds: float, peak: Peak) -> Limit:
    """Place a measured product under the roofline of arithmetic and compulsory traffic."""
    size = traffic(case, product)
    resident = peak.level(size)
    flops = case.flops * (2 if product == BACKWARD else 1)
    arithmetic, movement = flops / peak.flops, size / peak.read[resident]
    return Limit(
        peak_fraction=arithmetic / seconds,
        limit="fma" if arithmetic >= movement else resident,
        limit_fraction=max(arithmetic, movement) / seconds,
        resident=resident,
    )
