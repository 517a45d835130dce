"""In a process of its own: restores a sparse model by Orbax into an abstract one, and prints what it found as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

import sparsejax as sx

IMAGES = (32, 6, 6, 3)
CHANNELS = 16


class Network(nnx.Module):
    """A dense stem, two sparse convolutions between which activations stay batch-minor, and a linear layer."""

    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.stem = nnx.Conv(3, CHANNELS, (3, 3), rngs=rngs)
        self.first, self.second = (nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=rngs) for _ in range(2))
        self.head = nnx.Linear(CHANNELS, CHANNELS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.second(nnx.relu(self.first(self.stem(x)))).mean((1, 2)))


def sparse_network(seed: int) -> Any:
    """The network with masks drawn by ``seed``; every seed keeps equally many weights of a layer."""
    rng, model = np.random.default_rng(seed), Network(seed)
    masks = {}
    for path in ("first", "second", "head"):
        shape = getattr(model, path).kernel.shape
        masks[path] = rng.permutation(np.arange(np.prod(shape)) % 10 == 0).reshape(shape)
    inputs = jax.ShapeDtypeStruct(IMAGES, jnp.float32)
    return sx.sparsify(model, masks, policy="always", sample_input=inputs)[0]


def layouts(model: Any) -> list[str]:
    return [str(layer.layouts) for layer in (model.first, model.second)]


def outputs(model: Any) -> np.ndarray:
    x = np.random.default_rng(3).standard_normal(IMAGES).astype(np.float32)
    return np.asarray(nnx.jit(lambda model, x: model(x))(model, x))


def restored(folder: Path, seed: int) -> Any:
    """The model saved in a folder; the weights that ``seed`` would draw are never made."""
    graph, abstract = nnx.split(nnx.eval_shape(lambda: sparse_network(seed)))
    with ocp.StandardCheckpointer() as checkpointer:
        return nnx.merge(graph, checkpointer.restore(folder, abstract))


def main() -> None:
    model = restored(Path(sys.argv[1]), seed=7)
    for layer in (model.first, model.second, model.head):
        layer.pattern.validate()
    largest = max(array.size for array in jax.live_arrays())
    print(json.dumps({"layouts": layouts(model), "largest": largest, "outputs": outputs(model).tolist()}))


if __name__ == "__main__":
    main()
