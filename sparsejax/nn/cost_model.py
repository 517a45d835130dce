"""How long one forward and backward pass of a layer takes, dense and sparse: the model behind ``policy="rule"``.

Seconds are a sum of terms (what is computed and moved) times non-negative coefficients, so that more entries or more
positions never cost less. The coefficients were fitted to measured layers, float32 on one thread, by

    sparsejax bench layers --peers xla --shapes paper resnet18 transformer mlp --sparsity 0.5 0.8 --json some.json
    sparsejax bench layers --peers xla --sparsity 0.9 0.95 --json all.json
    sparsejax bench rule --from some.json all.json

whose output replaces ``COEFFICIENTS``. It also says how often the model picks the layer that was measured faster.
"""

from __future__ import annotations

import dataclasses
import math

__all__ = ["COEFFICIENTS", "Work", "dense_terms", "predict", "seconds", "sparse_terms"]

# Images or tokens that one vector operation of the kernels covers (float32, AVX-512); a remainder costs a whole one.
VECTOR = 16

# Nanoseconds per unit of each term; see `sparse_terms` and `dense_terms`. Printed by `sparsejax bench rule`.
COEFFICIENTS: dict[str, dict[str, dict[str, float]]] = {
    "conv": {
        "dense": {
            "call": 382000.0,
            "weights": 0.0,
            "multiply_adds": 0.0527,
            "activations": 0.0,
            "strided_multiply_adds": 0.00993,
            "patches": 1.37,
        },
        "sparse": {
            "call": 63800.0,
            "entries": 56.4,
            "vector_multiply_adds": 0.506,
            "activations": 1.8,
        },
    },
    "linear": {
        "dense": {
            "call": 0.0,
            "weights": 1.18,
            "multiply_adds": 0.0393,
            "activations": 1.17,
        },
        "sparse": {
            "call": 20100.0,
            "entries": 3.41,
            "vector_multiply_adds": 1.25,
            "activations": 1.27,
        },
    },
    "pointwise": {
        "dense": {
            "call": 0.0,
            "weights": 0.0,
            "multiply_adds": 0.109,
            "activations": 7.11,
            "strided_multiply_adds": 0.0,
        },
        "sparse": {
            "call": 1090000.0,
            "entries": 12.2,
            "vector_multiply_adds": 1.14,
            "activations": 0.574,
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Work:
    """One layer with one input.

    Attributes:
      kernel: shape of the dense kernel, ``(*window, in // groups, out)``.
      entries: stored weights.
      x, y: shapes of input and output, ``(*batch, *spatial, features)``.
      strided: whether any stride is above 1.
    """

    kernel: tuple[int, ...]
    entries: int
    x: tuple[int, ...]
    y: tuple[int, ...]
    strided: bool

    @property
    def kind(self) -> str:
        """Which coefficients hold: "linear", "pointwise" (a window of one) or "conv"."""
        if len(self.kernel) == 2:
            return "linear"
        return "pointwise" if self.window == 1 else "conv"

    @property
    def window(self) -> int:
        """Kernel positions per pair of channels."""
        return math.prod(self.kernel[:-2])

    @property
    def batch(self) -> int:
        """Product of the batch axes."""
        return math.prod(self.y[: self._batch_axes])

    @property
    def pixels(self) -> int:
        """Of the output of one example; 1 for a linear layer."""
        return math.prod(self.y[self._batch_axes : -1])

    @property
    def _batch_axes(self) -> int:
        return len(self.y) + 1 - len(self.kernel)


def sparse_terms(work: Work) -> dict[str, float]:
    """Count what the sparse layer's time is proportional to.

    Returns:
      "call": 1. "entries": stored weights, for checks, indices and the gradient. "vector_multiply_adds": one per entry,
      output pixel and vector of the batch. "activations": elements of input and output.

    >>> sparse_terms(Work((8, 4), 3, (32, 8), (32, 4), False))
    {'call': 1.0, 'entries': 3.0, 'vector_multiply_adds': 6.0, 'activations': 384.0}
    """
    vectors = work.pixels * math.ceil(work.batch / VECTOR)
    return {
        "call": 1.0,
        "entries": float(work.entries),
        "vector_multiply_adds": float(work.entries * vectors),
        "activations": float(math.prod(work.x) + math.prod(work.y)),
    }


def dense_terms(work: Work) -> dict[str, float]:
    """Count what the time of XLA's dense layer is proportional to.

    Returns:
      "call": 1. "weights": elements of the kernel. "multiply_adds": one per weight and output position. "activations":
      elements of input and output. Of convolutions also "strided_multiply_adds": the same where strides are above 1,
      else 0; and with a window "patches": elements of the unfolded input and output, which weigh most where channels
      are few.

    >>> dense_terms(Work((8, 4), 3, (32, 8), (32, 4), False))
    {'call': 1.0, 'weights': 32.0, 'multiply_adds': 1024.0, 'activations': 384.0}
    """
    positions, weights = work.batch * work.pixels, math.prod(work.kernel)
    terms = {
        "call": 1.0,
        "weights": float(weights),
        "multiply_adds": float(weights * positions),
        "activations": float(math.prod(work.x) + math.prod(work.y)),
    }
    if work.kind != "linear":
        terms["strided_multiply_adds"] = float(weights * positions * work.strided)
    if work.kind == "conv":
        terms["patches"] = float(positions * work.window * (work.kernel[-2] + work.kernel[-1]))
    return terms


def predict(work: Work) -> tuple[float, float]:
    """Predict the seconds of forward and both gradients of the dense and of the sparse layer.

    The ratio is what the model is for: absolute times are those of the machine of the fit.
    """
    table = COEFFICIENTS[work.kind]
    return seconds(dense_terms(work), table["dense"]), seconds(sparse_terms(work), table["sparse"])


def seconds(terms: dict[str, float], coefficients: dict[str, float]) -> float:
    """Sum of terms times nanoseconds per unit, in seconds.

    >>> round(1e9 * seconds({"call": 1.0, "entries": 10.0}, {"call": 500.0, "entries": 50.0}))
    1000
    """
    return 1e-9 * sum(coefficients[name] * amount for name, amount in terms.items())
