"""Small models that the tests of conversion share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

KINDS = (nnx.Linear, nnx.Conv)


class Block(nnx.Module):
    """A residual block with batch norm."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(features, features, (3, 3), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(features, rngs=rngs)
        self.conv2 = nnx.Conv(features, features, (3, 3), rngs=rngs)
        self.bn2 = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(x + self.bn2(self.conv2(y)))


class Net(nnx.Module):
    """Blocks in a list, one of them used twice; layers in a dict and in a tuple; dropout."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Block(6, rngs), Block(6, rngs)])
        self.repeat = self.blocks[0]
        self.heads = nnx.Dict(a=nnx.Linear(6, 12, rngs=rngs))
        self.tail = nnx.data((nnx.Linear(12, 9, rngs=rngs),))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(9, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        for block in (*self.blocks, self.repeat):
            x = block(x)
        x = nnx.relu(self.heads["a"](x.mean((1, 2))))
        return self.fc(self.dropout(nnx.relu(self.tail[0](x))))


SPARSE_PATHS = (
    "blocks/0/conv1",
    "blocks/0/conv2",
    "blocks/1/conv1",
    "blocks/1/conv2",
    "heads/a",
    "tail/0",
)


def layers_by_path(model: nnx.Module) -> dict[str, Any]:
    return {"/".join(map(str, path)): node for path, node in nnx.iter_graph(model) if isinstance(node, KINDS)}


def masked_net(seed: int = 0, density: float = 0.15) -> tuple[Net, dict[str, np.ndarray]]:
    """A net with zeros in all layers but stem and classifier, and the masks."""
    rng = np.random.default_rng(seed)
    model = Net(nnx.Rngs(seed))
    layers = layers_by_path(model)
    masks = {}
    for path in SPARSE_PATHS:
        kernel = layers[path].kernel
        masks[path] = rng.permutation(kernel.size).reshape(kernel.shape) < density * kernel.size
        kernel[...] = kernel[...] * masks[path]
    return model, masks


@pytest.fixture
def net() -> tuple[Net, dict[str, np.ndarray]]:
    return masked_net()


@pytest.fixture
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(7), (5, 8, 8, 2))
