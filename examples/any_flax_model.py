"""Sparse training of a ViT and a GPT written as Flax's documentation writes them, against masked dense training.

All kernels but embeddings and head are pruned to 90 % in one step; then the masked dense and the sparse model train on
the same random batch. Printed: the report of ``sparsify``, the largest difference of the losses, and the measured ratio
of step times beside the report's own figure.

    python examples/any_flax_model.py --width 256 --steps 50
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sparsejax as sx
from sparsejax import nn, pruning

CLASSES, VOCABULARY, LENGTH = 10, 64, 64


class Block(nnx.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=4, in_features=width, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(
            nnx.Linear(width, 4 * width, rngs=rngs), nnx.gelu, nnx.Linear(4 * width, width, rngs=rngs)
        )

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Add attention and perceptron to the residual stream."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.mlp(self.norm2(x))


class ViT(nnx.Module):
    """Patches by a convolution, a class token, blocks, a head."""

    def __init__(self, width: int, depth: int, rngs: nnx.Rngs):
        self.patches = nnx.Conv(3, width, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, LENGTH + 1, width)))
        self.token = nnx.Param(jnp.zeros((1, 1, width)))
        self.blocks = nnx.List([Block(width, rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images ``float[n, 32, 32, 3]`` to logits."""
        x = self.patches(images)
        x = x.reshape(len(x), -1, x.shape[-1])
        token = jnp.broadcast_to(self.token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([token, x], 1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class GPT(nnx.Module):
    """A decoder with learned positions."""

    def __init__(self, width: int, depth: int, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, VOCABULARY, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map tokens ``int[n, length]`` to logits of the next ones."""
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x, nnx.make_causal_mask(tokens))
        return self.head(self.norm(x))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
      report: of ``sparsify``.
      losses: of the masked dense and of the sparse model, step by step.
      seconds: median time of a training step of the dense model without masks, and of the sparse model.
    """

    report: nn.SparsifyReport
    losses: tuple[list[float], list[float]]
    seconds: tuple[float, float]

    @property
    def difference(self) -> float:
        """Largest difference of the losses."""
        return max(abs(a - b) for a, b in zip(*self.losses, strict=True))


def compare(model: Any, inputs: jax.Array, labels: jax.Array, *, steps: int, policy: Any = "measured") -> Comparison:
    """Prune, convert and train a model; ``labels`` are classes of the last axis of its output."""

    def loss(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()

    @nnx.jit
    def step(model: Any, optimizer: Any) -> jax.Array:
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    where = pruning.is_kernel() & ~pruning.path("head/*")
    tx = pruning.pruned(optax.adam(1e-3), pruning.one_shot(0.9, scope="layer"), where=where)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    step(model, optimizer)  # prunes
    masks = pruning.get_mask(optimizer.opt_state)
    sparse, report = sx.sparsify(model, masks, policy=policy, sample_input=inputs)
    masked = pruning.pruned(optax.adam(1e-3), pruning.fixed(masks), where=where)
    dense = nnx.clone(model)
    losses, _ = train(step, model, masked, steps)
    sparse_losses, sparse_s = train(step, sparse, rest_masked(masks, report, where), steps)
    _, dense_s = train(step, dense, optax.adam(1e-3), min(steps, 10))
    return Comparison(report, (losses, sparse_losses), (dense_s, sparse_s))


def rest_masked(masks: Any, report: nn.SparsifyReport, where: pruning.Filter) -> optax.GradientTransformation:
    """Adam that keeps the masks of pruned layers that stay dense; those of sparse layers need none."""
    dense = {f"{row.path}/kernel" for row in report.rows if row.action == "dense"}

    def rest(path: Any, mask: Any) -> Any:
        return mask if jax.tree_util.keystr(path, simple=True, separator="/") in dense else optax.MaskedNode()

    kept = jax.tree_util.tree_map_with_path(rest, masks)
    if not jax.tree.leaves(kept):
        return optax.adam(1e-3)
    return pruning.pruned(optax.adam(1e-3), pruning.fixed(kept), where=where & (lambda path, _: path in dense))


def train(step: Callable[..., jax.Array], model: Any, tx: Any, steps: int) -> tuple[list[float], float]:
    """Losses and the median seconds of a step."""
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    losses: list[float] = []
    times: list[float] = []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(float(step(model, optimizer)))
        times.append(time.perf_counter() - start)
    return losses, statistics.median(times)


def tasks(width: int, depth: int, batch: int) -> dict[str, tuple[Any, jax.Array, jax.Array]]:
    """Model, inputs and labels by name; the data are random."""
    keys = jax.random.split(jax.random.key(0), 4)
    images = jax.random.normal(keys[0], (batch, 32, 32, 3))
    tokens = jax.random.randint(keys[1], (batch, LENGTH + 1), 0, VOCABULARY)
    return {
        "ViT": (ViT(width, depth, nnx.Rngs(0)), images, jax.random.randint(keys[2], (batch,), 0, CLASSES)),
        "GPT": (GPT(width, depth, nnx.Rngs(0)), tokens[:, :-1], tokens[:, 1:]),
    }


def main() -> None:
    """Print the comparison of both models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("width", 256), ("depth", 2), ("batch", 16), ("steps", 50)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    for name, (model, inputs, labels) in tasks(options.width, options.depth, options.batch).items():
        result = compare(model, inputs, labels, steps=options.steps)
        dense_s, sparse_s = result.seconds
        print(f"{name}\n{result.report}")
        print(f"largest difference of the losses over {options.steps} steps: {result.difference:.1e}")
        times = f"dense {1e3 * dense_s:.1f} ms, sparse {1e3 * sparse_s:.1f} ms"
        print(f"step with Adam: {times}, {dense_s / sparse_s:.2f}x less time")


if __name__ == "__main__":
    main()
