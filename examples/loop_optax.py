"""AC/DC in a plain Optax loop: a Linen model on scikit-learn's digits, 90 % of its weights zero at the end.

``train`` is an ordinary loop that knows nothing about pruning; what prunes is the optimizer that it is given:

    python examples/loop_optax.py
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn

from sparsejax import data, pruning

EPOCHS = 20
STEPS = 11  # batches of 128 in an epoch


class Net(nn.Module):
    """A multilayer perceptron."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """``float[B, 8, 8, 1] -> float[B, 10]``."""
        x = images.reshape(len(images), -1)
        x = nn.relu(nn.Dense(128)(x))
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10)(x)


def train(tx: optax.GradientTransformation, digits: data.Dataset) -> tuple[Any, Any, list[float]]:
    """Train, and return parameters, optimizer state and the mean loss of every epoch."""
    model = Net()
    params = model.init(jax.random.key(0), digits.train_images[:1])
    opt_state = tx.init(params)

    @jax.jit
    def step(params: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        def loss_of(params: Any) -> jax.Array:
            logits = model.apply(params, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    history = []
    for epoch in range(EPOCHS):
        losses = []
        batches = data.batches(digits.train_images, digits.train_labels, 128, seed=0, epoch=epoch, drop_last=True)
        for images, labels in batches:
            params, opt_state, loss = step(params, opt_state, images, labels)
            losses.append(float(loss))
        history.append(float(np.mean(losses)))
    return params, opt_state, history


def optimizer() -> optax.GradientTransformation:
    """Return SGD with momentum and decay, wrapped: the one change that pruning asks for."""
    inner = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.1, momentum=0.9))
    phases = pruning.acdc_phases(
        total=EPOCHS, warmup=4, sparse=3, dense=3, last_dense=3, final_sparse=4, steps_per_unit=STEPS
    )
    return pruning.pruned(inner, pruning.acdc(0.9, phases))


def main() -> None:
    """Train, and say what came out."""
    digits = data.digits()
    params, opt_state, losses = train(optimizer(), digits)
    accuracy = (Net().apply(params, digits.test_images).argmax(-1) == digits.test_labels).mean()
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, test accuracy {accuracy:.3f}")
    print({name: value.item() for name, value in pruning.metrics(opt_state).items()})


if __name__ == "__main__":
    main()
