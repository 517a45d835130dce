"""ResNet-18 in Flax: dense, and with sparsejax's layers; the same training step under ``jit`` for both."""

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
from sparsejax.models import ResNet
from sparsejax.nn import SparseLayer, modules_of
from sparsejax.train import bind_step

from ..cases._network import LEARNING_RATE, MOMENTUM, NetworkCase, NetworkPeer, Trainer


class PlainResNet(ResNet):
    """The network with Flax's own pooling in place of ours, whose layout suits sparse layers."""

    def features(self, images: jax.Array) -> jax.Array:
        """As `ResNet.features`."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        if self.stem == "imagenet":
            # Flax's annotation of the padding is narrower than what it takes.
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=self.pool_padding)  # pyright: ignore[reportArgumentType]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return x.mean((1, 2))


def sparse_model(case: NetworkCase) -> Any:
    """The network with every masked convolution sparse, and the layers without a mask in the form measured faster."""
    masked, _ = sx.sparsify(case.model(), case.masks, min_sparsity=case.sparsity / 2, policy="always")
    images = jax.ShapeDtypeStruct(case.images.shape, case.images.dtype)
    return sx.sparsify(masked, min_sparsity=0.0, policy="measured", sample_input=images)[0]


def _trainer(case: NetworkCase, model: Any) -> Trainer:
    optimizer = nnx.Optimizer(model, optax.sgd(LEARNING_RATE, MOMENTUM), wrt=nnx.Param)
    train = bind_step(model, optimizer)
    images, labels = jnp.asarray(case.images), jnp.asarray(case.labels)

    def step() -> float:
        # The loss does not wait for the update, so all that a step changes is waited for.
        loss = train(images, labels)
        jax.block_until_ready((nnx.state(model), nnx.state(optimizer)))
        return float(loss)

    def gradients() -> dict[str, np.ndarray]:
        patterns = {path: layer.pattern for path, layer in modules_of(model, (SparseLayer,)).items()}
        gradients = {}
        for path, momentum in nnx.to_flat_state(nnx.state(optimizer.opt_state[0].trace)):
            name = "/".join(map(str, path))
            pattern = patterns.get(name.removesuffix("/kernel"))
            value = momentum[...]
            gradients[name] = np.asarray(value if pattern is None else pattern.scatter(value))
        return gradients

    return Trainer(step, gradients)


def _dense(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    networks = {"flax": PlainResNet, "sparsejax pooling": ResNet}
    return {name: functools.partial(lambda net: _trainer(case, case.model(net)), net) for name, net in networks.items()}


def _ours(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    return {"sparsify": lambda: _trainer(case, sparse_model(case))}


DENSE = NetworkPeer("xla", lambda: None, lambda case: None, _dense)
OURS = NetworkPeer("sparsejax", lambda: None, lambda case: None, _ours)
