"""A layer to be timed: shape, random pattern, values, activations, and the results that are right."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from . import _oracle
from ._shapes import Shape

# Largest error allowed, relative to the results' root mean square. Sums of a million float32 products stay far below.
TOLERANCE = 1e-3
# A product of bfloat16 numbers is off by 2**-8 of its size, and the largest of many by several times as much.
BFLOAT16_TOLERANCE = 0.1

FORWARD = "forward"
BACKWARD = "backward"  # input gradient and weight gradient
STEP = "step"  # forward and backward
RESULTS = {
    FORWARD: ("y",),
    STEP: ("y", "dx", "dw"),
    BACKWARD: ("dx", "dw"),
    "input_grad": ("dx",),
    "weight_grad": ("dw",),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One layer at one sparsity, with seeded operands; arrays are made when first asked for.

    Attributes:
      shape: of the layer.
      sparsity: fraction of zeros in the kernel, uniformly at random.
      seed: of everything random.
    """

    shape: Shape
    sparsity: float
    seed: int = 0

    def _random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """bool[*window, in, out], true where a weight is stored; at least one is."""
        size = math.prod(self.shape.kernel)
        stored = max(1, round((1 - self.sparsity) * size))
        mask = np.zeros(size, bool)
        mask[self._random(0).choice(size, stored, replace=False, shuffle=False)] = True
        return mask.reshape(self.shape.kernel)

    @functools.cached_property
    def kernel(self) -> np.ndarray:
        """float32 kernel with zeros where nothing is stored, scaled so that outputs are of order one."""
        scale = math.sqrt(self.mask.size / self.mask.sum() / math.prod(self.shape.kernel[:-1]))
        # Never exactly zero where stored: libraries that look for zeros must see the same pattern.
        values = self._random(1).uniform(0.5, 1.5, self.shape.kernel) * self._random(2).choice([-1, 1], self.mask.shape)
        return (values * scale * self.mask).astype(np.float32)

    @functools.cached_property
    def x(self) -> np.ndarray:
        """float32[batch, *spatial, in]."""
        return self._random(3).standard_normal(self.shape.x, np.float32)

    @functools.cached_property
    def cotangent(self) -> np.ndarray:
        """float32[batch, *out_spatial, out]."""
        return self._random(4).standard_normal(self.shape.y, np.float32)

    @property
    def nnz(self) -> int:
        """Stored weights."""
        return int(self.mask.sum())

    @functools.cached_property
    def flops(self) -> int:
        """Useful work of one product: two operations per stored weight and position where it meets an input."""
        total = 0
        for tap, outputs, _ in _oracle.taps(self.shape):
            positions = math.prod(s.stop - s.start for s in outputs)
            total += 2 * int(self.mask[tap].sum()) * positions * self.shape.batch
        return total

    def stored(self, kernel: np.ndarray) -> np.ndarray:
        """Entries of a dense kernel at the stored positions: rows are outputs, ascending inside a row."""
        columns = math.prod(self.shape.kernel[:-1])
        return kernel.reshape(columns, -1).T[self.mask.reshape(columns, -1).T]

    @functools.cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """The right results: "y", "dx", and "dw" at the stored positions."""
        y, dx, dw = _oracle.products(self.shape, self.kernel, self.x, self.cotangent)
        return {"y": y, "dx": dx, "dw": self.stored(dw)}

    def error(self, results: dict[str, np.ndarray]) -> float:
        """Largest difference to the right results, in units of their root mean square; NaN counts as infinite.

        Args:
          results: any of "y", "dx" (channels last) and "dw" (stored positions).
        """
        worst = 0.0
        for name, got in results.items():
            right = self.expected[name]
            if np.shape(got) != right.shape:
                return math.inf
            size = math.sqrt(float(np.mean(right**2))) or 1.0
            difference = float(np.max(np.abs(got - right))) / size
            worst = max(worst, math.inf if math.isnan(difference) else difference)
        return worst
