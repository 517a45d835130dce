"""RigL in an ``nnx.Optimizer`` loop: an NNX model on scikit-learn's digits, 90 % of its weights zero throughout.

``train`` is an ordinary loop that knows nothing about pruning; what prunes is the optimizer that it is given:

    python examples/loop_nnx.py
"""

from __future__ import annotations

import jax
import numpy as np
import optax
from flax import nnx

from sparsejax import data, pruning

EPOCHS = 8


class Net(nnx.Module):
    """A multilayer perceptron with batch norm."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 128, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(128, momentum=0.9, rngs=rngs)
        self.output = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """``float[B, 8, 8, 1] -> float[B, 10]``."""
        x = images.reshape(len(images), -1)
        return self.output(nnx.relu(self.norm(self.hidden(x))))


def train(tx: optax.GradientTransformation, digits: data.Dataset) -> tuple[Net, nnx.Optimizer, list[float]]:
    """Train, and return model, optimizer and the mean loss of every epoch."""
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Net, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
        def loss_of(model: Net) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return loss

    history = []
    for epoch in range(EPOCHS):
        batches = data.batches(digits.train_images, digits.train_labels, 64, seed=0, epoch=epoch, drop_last=True)
        history.append(float(np.mean([step(model, optimizer, images, labels) for images, labels in batches])))
    return model, optimizer, history


def pruning_optimizer() -> optax.GradientTransformation:
    """Return Adam, wrapped: the one change that pruning asks for.

    RigL is sparse from the start. The first step sets the weights outside its first mask to zero; to have them at zero
    in the first forward pass as well, start from ``pruning.init(tx, nnx.state(model, nnx.Param))``.
    """
    return pruning.pruned(optax.adam(3e-3), pruning.rigl(0.9, update_every=20, stop=120))


def main() -> None:
    """Train, and say what came out."""
    digits = data.digits()
    model, optimizer, losses = train(pruning_optimizer(), digits)
    model.eval()
    accuracy = (model(digits.test_images).argmax(-1) == digits.test_labels).mean()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, test accuracy {accuracy:.3f}")
    print({name: value.item() for name, value in pruning.metrics(optimizer.opt_state).items()})


if __name__ == "__main__":
    main()
