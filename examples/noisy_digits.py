"""Shifted, noisy digits, a small convolutional network for them, and how it is trained.

The images are scikit-learn's digits (or MNIST's made smaller), shifted by a pixel and noisy: plain ones saturate near
99 % and hide what pruning does. Used by ``pruning_digits.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sparsejax import pruning
from sparsejax.data import idx_dataset

BATCH = 64
NOISE = 0.25
TEST_DRAWS = 4
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


class Conv3x3(nn.Module):
    """A convolution without bias: patches times a matrix, whose shape is also what ERK goes by."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``float[B, H, W, C] -> float[B, H, W, features]``."""
        height, width, channels = x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (9 * channels, self.features))
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return jnp.concatenate(patches, axis=-1) @ kernel


class Net(nn.Module):
    """Two convolutions with batch norm, ReLU and pooling, two dense layers; 10,696 prunable weights at 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """``float[B, side, side, 1] -> float[B, 10]``, the side a multiple of 4."""
        for features in (8, 16):
            x = Conv3x3(features)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, features).max((2, 4))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


@dataclass(frozen=True)
class Design:
    """What the runs of a study have in common.

    Attributes:
      levels: sparsities.
      seeds: number of seeds.
      epochs: passes over the training images.
      learning_rate: peak, after a linear warm-up of a sixteenth of the run; then cosine to 0.
      weight_decay: coupled, on every parameter.
      momentum: of SGD.
      warmup, phase, last_dense, final_sparse: epochs of AC/DC's phases; ``phase`` is that of an inner one.
      source: "digits", or a folder of IDX files whose images are made 16 x 16 pixels.
      train_images: the first images; the others are for testing.
      side: pixels.
    """

    levels: tuple[float, ...] = (0.9, 0.95, 0.98)
    seeds: int = 5
    epochs: int = 80
    learning_rate: float = 0.2
    weight_decay: float = 2e-3
    momentum: float = 0.9
    warmup: int = 8
    phase: int = 8
    last_dense: int = 8
    final_sparse: int = 12
    source: str = "digits"
    train_images: int = 1280
    side: int = 8

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.train_images // BATCH

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return self.epochs * self.per_epoch

    @property
    def layers(self) -> tuple[pruning.accounting.LayerShape, ...]:
        """Return the prunable layers, for counting."""
        return (
            pruning.accounting.LayerShape("Conv3x3_0/kernel", (9, 8), positions=self.side**2),
            pruning.accounting.LayerShape("Conv3x3_1/kernel", (72, 16), positions=self.side**2 // 4),
            pruning.accounting.LayerShape("Dense_0/kernel", (self.side**2, 128), bias=True),
            pruning.accounting.LayerShape("Dense_1/kernel", (128, 10), bias=True),
        )

    @property
    def weights(self) -> int:
        """Number of prunable weights."""
        return sum(layer.size for layer in self.layers)

    def flops(self, nnz: dict[str, int] | None = None) -> int:
        """Return the operations of a forward pass of one image, by the rules of the AC/DC authors."""
        pixels = self.side**2 * 8 + self.side**2 // 4 * 16  # values before the two poolings, which halve each side
        other = pruning.accounting.OtherOps(batch_norm=pixels, relu=pixels + 128, pooling=pixels)
        return pruning.accounting.forward_flops(self.layers, nnz, other)

    def inner(self) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer that every method wraps."""
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, self.steps // 16, self.steps)
        return optax.chain(optax.add_decayed_weights(self.weight_decay), optax.sgd(rate, momentum=self.momentum))

    def phases(self, **optimizer: float) -> pruning.PhaseList:
        """Return the phases of AC/DC in steps; with the optimizer's numbers also their length in decay times."""
        return pruning.acdc_phases(
            total=self.epochs, warmup=self.warmup, sparse=self.phase, dense=self.phase, last_dense=self.last_dense,
            final_sparse=self.final_sparse, steps_per_unit=self.per_epoch, **optimizer,
        )  # fmt: skip

    def step_at(self, share: float) -> int:
        """Return the step at the end of the epoch that is ``share`` of the run."""
        return round(share * self.epochs) * self.per_epoch


class Data(NamedTuple):
    """Training images under every one of ``SHIFTS``, float32[9, N, side, side, 1]; fixed noisy draws of test images."""

    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def _images(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return images float[N, side, side] in [0, 1] and labels, those for training first."""
    if design.source == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        return bunch.images[order] / 16.0, bunch.target[order]
    read = idx_dataset(design.source)
    images = np.concatenate([read.train_images, read.test_images])[..., 0]
    margin = design.side - images.shape[1] // 2  # pad 28 pixels to 32, then 2 x 2 means
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    halved = padded.reshape(len(images), design.side, 2, design.side, 2).mean((2, 4))
    return halved, np.concatenate([read.train_labels, read.test_labels])


def make_data(design: Design) -> Data:
    """Split and shift the images, and draw the test images."""
    images, labels = _images(design)
    padded, side = np.pad(images, ((0, 0), (1, 1), (1, 1))), design.side
    shifted = np.stack([padded[:, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side] for dy, dx in SHIFTS])[..., None]
    train, held_out = np.split(shifted.astype(np.float32), [design.train_images], axis=1)
    train_labels, test_labels = np.split(labels.astype(np.int32), [design.train_images])
    rng, count = np.random.default_rng(1), len(test_labels)
    draws = [held_out[rng.integers(len(SHIFTS), size=count), np.arange(count)] for _ in range(TEST_DRAWS)]
    test = np.concatenate(draws)
    noise = NOISE * rng.standard_normal(test.shape, np.float32)
    return Data(train, train_labels, test + noise, np.tile(test_labels, TEST_DRAWS))


def epoch_batches(design: Design, epoch: int, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Draw an epoch's batches for every seed, [seeds, steps, 64, ...]: a new order, new shifts and new noise.

    NumPy: programs that draw random numbers take XLA longer to compile than all of training.
    """
    drawn = []
    for seed in range(design.seeds):
        rng, count = np.random.default_rng((seed, epoch)), len(data.labels)
        order = rng.permutation(count)
        images = data.train[rng.integers(len(SHIFTS), size=count), order]
        images = images + NOISE * rng.standard_normal(images.shape, np.float32)
        shape = (design.per_epoch, BATCH)
        drawn.append((images.reshape(*shape, *images.shape[1:]), data.labels[order].reshape(shape)))
    images, labels = zip(*drawn, strict=True)
    return np.stack(images), np.stack(labels)


def initial_weights(design: Design, seed: int) -> tuple[Any, Any]:
    """Return initial parameters and batch statistics: kernels of variance 1 / fan-in, as Flax has them."""
    image = jax.ShapeDtypeStruct((1, design.side, design.side, 1), jnp.float32)
    shapes = jax.eval_shape(lambda image: Net().init(jax.random.key(0), image, False), image)
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            return rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.full(leaf.shape, name in ("scale", "var"), np.float32)

    filled = jax.tree_util.tree_map_with_path(fill, shapes)
    return filled["params"], filled["batch_stats"]
