"""Time one training step of a small ConvNet: compressed, dense in XLA, and dense in PyTorch, on one thread.

Same network, weights, batch and optimizer (SGD with momentum), called in turn: A B C A B C ... PyTorch counts with the
faster of its two memory formats. The notebook ``notebooks/acdc.ipynb`` uses this file; by itself it prints a table:

    NPROC=1 XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python examples/step_times.py
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

import sparsejax as sx
from sparsejax import pruning
from sparsejax.models import ConvNet
from sparsejax.train import train_step

LEARNING_RATE = 0.1
MOMENTUM = 0.9
FORMATS = ("contiguous_format", "channels_last")

COMPRESSED, XLA, PYTORCH = "compressed", "XLA", "PyTorch"


class Contender(NamedTuple):
    """A network in training.

    Attributes:
      step: takes one step and returns the loss before it, when all is done.
      parameter_bytes: trained values.
      momentum_bytes: state of the optimizer.
    """

    step: Callable[[], float]
    parameter_bytes: int = 0
    momentum_bytes: int = 0


class Times(NamedTuple):
    """Milliseconds of a step, one per round, by contender; and bytes of the compressed network as a part of the dense.

    Attributes:
      ms: by contender; those of PyTorch are absent where it is not installed.
      parameters: trained values, compressed by dense.
      momentum: the same of the optimizer's state.
    """

    ms: dict[str, np.ndarray]
    parameters: float
    momentum: float

    def faster(self, opponent: str) -> float:
        """Return how many times as long a step of the opponent takes, as the median over rounds."""
        return float(np.median(self.ms[opponent] / self.ms[COMPRESSED]))


def has_torch() -> bool:
    """Say whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def pruned_network(sparsity: float, widths: tuple[int, ...], seed: int) -> ConvNet:
    """Return a ConvNet with the smallest weights of each layer at 0, without the first layer and the classifier."""
    model = ConvNet(10, in_features=1, widths=widths, rngs=nnx.Rngs(seed))
    head = pruning.path("fc/*") | pruning.path("convs/0/*")
    where = pruning.is_kernel() & ~head
    nnx.update(model, pruning.project(nnx.state(model, nnx.Param), sparsity, where=where, scope="layer"))
    return model


def in_jax(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> Contender:
    """Train a dense or compressed network with ``sparsejax.train.train_step``."""
    copy = nnx.clone(model)
    optimizer = nnx.Optimizer(copy, optax.sgd(LEARNING_RATE, momentum=MOMENTUM), wrt=nnx.Param)
    sizes = [
        sum(leaf.nbytes for leaf in jax.tree.leaves(each))
        for each in (nnx.state(copy, nnx.Param), nnx.state(optimizer))
    ]
    return Contender(lambda: float(train_step(copy, optimizer, images, labels)), *sizes)


def in_torch(model: ConvNet, images: np.ndarray, labels: np.ndarray, memory_format: str) -> Contender:
    """Train the same dense network in PyTorch, with the weights of ``model``."""
    import torch
    from torch.nn import BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential

    layers: list[Module] = []
    for index, (convolution, norm) in enumerate(zip(model.convs, model.bns, strict=True)):
        kernel = np.array(convolution.kernel[...])
        layer = Conv2d(*kernel.shape[2:], 3, padding=1, bias=False)
        layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        layers += [MaxPool2d(2)] if index else []
        layers += [layer, BatchNorm2d(norm.num_features), torch.nn.ReLU()]
    classifier = Linear(model.fc.in_features, model.fc.out_features)
    classifier.weight.data = torch.from_numpy(np.array(model.fc.kernel[...]).T.copy())
    classifier.bias.data = torch.from_numpy(np.array(model.fc.bias[...]))
    network = Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), classifier)
    layout = getattr(torch, memory_format)
    network.to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    batch = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).contiguous(memory_format=layout)
    targets = torch.from_numpy(labels.astype(np.int64))
    torch.set_num_threads(1)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(batch), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Contender(step)


def in_turn(contenders: dict[str, Contender], repeats: int) -> dict[str, np.ndarray]:
    """Return milliseconds of each contender's step, after two that do not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(2 + repeats):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            contender.step()
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: np.array(each) for name, each in times.items()}


def compare(sparsity: float, widths: tuple[int, ...], batch: int, repeats: int, seed: int = 0) -> Times:
    """Time a step of all contenders in turn.

    Args:
      sparsity: fraction of zeros of every layer but the first and the last.
      widths: channels of the convolutions.
      batch: images in a step.
      repeats: timed steps of each.
      seed: of the weights.
    """
    digits = sx.data.digits()
    images, labels = digits.train_images[:batch], digits.train_labels[:batch]
    model = pruned_network(sparsity, widths, seed)
    compressed, _ = sx.sparsify(model, policy="always")
    contenders = {COMPRESSED: in_jax(compressed, images, labels), XLA: in_jax(model, images, labels)}
    if has_torch():
        contenders |= {name: in_torch(model, images, labels, name) for name in FORMATS}
    ms = in_turn(contenders, repeats)
    if has_torch():
        ms[PYTORCH] = min((ms.pop(name) for name in FORMATS), key=np.median)
    sparse, dense = contenders[COMPRESSED], contenders[XLA]
    return Times(ms, sparse.parameter_bytes / dense.parameter_bytes, sparse.momentum_bytes / dense.momentum_bytes)


def main() -> None:
    """Print how many times faster the compressed step is."""
    for sparsity in (0.9, 0.95, 0.98):
        times = compare(sparsity, (64, 128, 256), 128, 15)
        medians = ", ".join(f"{name} {np.median(each):.2f} ms" for name, each in times.ms.items())
        print(f"{sparsity:.0%}: {medians}")


if __name__ == "__main__":
    main()
