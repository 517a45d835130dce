"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
from flax import nnx

from sparsejax._checks import fail


class MLP(nnx.Module):
    """Linear layers with ReLU and a linear classifier, on inputs of any rank, flattened row-major.

    Attributes: ``layers`` (the hidden layers) and ``fc``.

    Args:
      in_features: numbers in one example, for images height * width * channels.
      num_classes: outputs of the classifier.
      hidden: widths of the hidden layers; may be empty.
      rngs: random streams for initialisation (He normal for hidden layers).

    Raises:
      ValueError: when called, examples whose size is not ``in_features``.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition",
    section III-C (LeNet-300-100).

    >>> model = MLP(64, 10, rngs=nnx.Rngs(0))
    >>> model(jax.numpy.ones((2, 8, 8, 1))).shape
    (2, 10)
    """

    def __init__(self, in_features: int, num_classes: int = 10, *, hidden: Sequence[int] = (300, 100), rngs: nnx.Rngs):
        self.in_features = in_features
        widths = (in_features, *hidden)
        he_normal = nnx.initializers.he_normal()
        self.layers = nnx.List(
            [nnx.Linear(a, b, kernel_init=he_normal, rngs=rngs) for a, b in zip(widths, hidden, strict=False)]
        )
        self.fc = nnx.Linear(widths[-1], num_classes, rngs=rngs)

    def features(self, inputs: jax.Array) -> jax.Array:
        """Return the last hidden activations: ``float[B, ...] -> float[B, hidden[-1]]``."""
        size = math.prod(inputs.shape[1:])
        if inputs.ndim < 2 or size != self.in_features:
            fail(
                "MLP",
                "inputs",
                f"shape {tuple(inputs.shape)}",
                f"a batch axis and {self.in_features} numbers per example",
            )
        x = inputs.reshape(inputs.shape[0], size)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return logits: ``float[B, ...] -> float[B, num_classes]``."""
        return self.fc(self.features(inputs))
