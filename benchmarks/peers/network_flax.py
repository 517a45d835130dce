"""Networks in Flax: dense, and with sparsejax's layers; the same training step under ``jit`` for both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import sparsejax as sx
from sparsejax.nn import SparseLayer, modules_of
from sparsejax.train import bind_step

from ..cases._network import LEARNING_RATE, MOMENTUM, NetworkCase, NetworkPeer, Trainer


def sparse_model(case: NetworkCase) -> Any:
    """The network with every masked layer sparse, and the layers without a mask in the form measured faster."""
    masked, _ = sx.sparsify(case.model(), case.masks, min_sparsity=case.sparsity / 2, policy="always")
    inputs = jax.ShapeDtypeStruct(case.inputs.shape, case.inputs.dtype)
    return sx.sparsify(masked, min_sparsity=0.0, policy="measured", sample_input=inputs)[0]


def _trainer(case: NetworkCase, model: Any) -> Trainer:
    optimizer = nnx.Optimizer(model, optax.sgd(LEARNING_RATE, MOMENTUM), wrt=nnx.Param)
    train = bind_step(model, optimizer)
    inputs, labels = jnp.asarray(case.inputs), jnp.asarray(case.labels)

    def step() -> float:
        # The loss does not wait for the update, so all that a step changes is waited for.
        loss = train(inputs, labels)
        jax.block_until_ready((nnx.state(model), nnx.state(optimizer)))
        return float(loss)

    def gradients() -> dict[str, np.ndarray]:
        patterns = {path: layer.pattern for path, layer in modules_of(model, (SparseLayer,)).items()}
        gradients = {}
        for path, momentum in nnx.to_flat_state(nnx.state(optimizer.opt_state[0].trace)):
            name = "/".join(map(str, path))
            layer, _, kind = name.rpartition("/")
            value = momentum[...]
            if kind == "kernel" and layer in patterns:
                value = patterns[layer].scatter(value)
            mask = case.masks.get(layer) if kind == "kernel" else None  # a product over several axes has a flat pattern
            gradients[name] = np.asarray(value if mask is None else value.reshape(mask.shape))
        return gradients

    return Trainer(step, gradients)


def _dense(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    def build(plain: bool) -> Trainer:
        return _trainer(case, case.model(plain=plain))

    return {name: functools.partial(build, name == case.dense_variants[0]) for name in case.dense_variants}


def _ours(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    return {"sparsify": lambda: _trainer(case, sparse_model(case))}


DENSE = NetworkPeer("xla", lambda: None, lambda case: None, _dense)
OURS = NetworkPeer("sparsejax", lambda: None, lambda case: None, _ours)
