"""Gradual magnitude pruning in a ``lax.scan`` over steps: a whole run is one compiled program.

``train`` is an ordinary scanned loop that knows nothing about pruning; what prunes is the optimizer that it is given:

    python examples/loop_scan.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax import data, pruning

STEPS = 400
BATCH = 64


def init() -> dict[str, Any]:
    """Return the parameters of a network 64-128-10."""
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": {"kernel": jax.random.normal(first, (64, 128)) / 8, "bias": jnp.zeros(128)},
        "output": {"kernel": jax.random.normal(second, (128, 10)) / 11, "bias": jnp.zeros(10)},
    }


def predict(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """``float[B, 8, 8, 1] -> float[B, 10]``."""
    x = images.reshape(len(images), -1)
    x = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def train(tx: optax.GradientTransformation, digits: data.Dataset) -> tuple[Any, Any, jax.Array]:
    """Train, and return parameters, optimizer state and the loss of every step."""
    images, labels = jnp.asarray(digits.train_images), jnp.asarray(digits.train_labels)
    order = np.random.default_rng(0).integers(len(labels), size=(STEPS, BATCH))

    def step(carry: tuple[Any, Any], batch: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        params, opt_state = carry

        def loss_of(params: Any) -> jax.Array:
            logits = predict(params, images[batch])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    params = init()
    (params, opt_state), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, order))((params, tx.init(params)))
    return params, opt_state, losses


def optimizer() -> optax.GradientTransformation:
    """Return AdamW, wrapped: the one change that pruning asks for."""
    ramp = pruning.schedules.cubic(0.0, 0.95, begin=50, end=300)
    return pruning.pruned(optax.adamw(3e-3), pruning.magnitude(ramp, update_every=25, start=50, stop=300))


def main() -> None:
    """Train, and say what came out."""
    digits = data.digits()
    params, opt_state, losses = train(optimizer(), digits)
    accuracy = (predict(params, digits.test_images).argmax(-1) == digits.test_labels).mean()
    print(f"loss {losses[0]:.3f} -> {losses[-20:].mean():.3f}, test accuracy {accuracy:.3f}")
    print({name: value.item() for name, value in pruning.metrics(opt_state).items()})


if __name__ == "__main__":
    main()
