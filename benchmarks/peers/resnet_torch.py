"""ResNet-18 in PyTorch: dense, and with SparseProp's layers; parameters are those of the Flax network."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from ..cases._network import CLASSES, LARGEST_SMALL_IMAGE, LEARNING_RATE, MOMENTUM, NetworkCase, NetworkPeer, Trainer
from . import _torch, sparseprop

# The authors' rule of thumb: vectorise over the batch where images are smaller than this, else over image rows.
_SMALL = 32


def network(small_stem: bool) -> Any:
    """Torchvision's ResNet-18 with its parameter names; the small stem is a 3x3 convolution without pooling."""
    import torch
    from torch.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Identity, Linear, MaxPool2d, Module, Sequential

    class Block(Module):
        def __init__(self, inputs: int, width: int, stride: int):
            super().__init__()
            self.conv1 = Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = BatchNorm2d(width)
            self.conv2 = Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = BatchNorm2d(width)
            self.downsample: Module = Identity()
            if stride != 1 or inputs != width:
                self.downsample = Sequential(Conv2d(inputs, width, 1, stride, bias=False), BatchNorm2d(width))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))

    class Network(Module):
        def __init__(self) -> None:
            super().__init__()
            size, stride = (3, 1) if small_stem else (7, 2)
            self.conv1 = Conv2d(3, 64, size, stride, size // 2, bias=False)
            self.bn1 = BatchNorm2d(64)
            self.pool = Identity() if small_stem else MaxPool2d(3, 2, 1)
            self.layer1 = Sequential(Block(64, 64, 1), Block(64, 64, 1))
            self.layer2 = Sequential(Block(64, 128, 2), Block(128, 128, 1))
            self.layer3 = Sequential(Block(128, 256, 2), Block(256, 256, 1))
            self.layer4 = Sequential(Block(256, 512, 2), Block(512, 512, 1))
            self.average = AdaptiveAvgPool2d(1)
            self.fc = Linear(512, CLASSES)

        def forward(self, x: Any) -> Any:
            x = self.pool(torch.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(self.average(x).flatten(1))

    return Network()


def _parameter_name(path: str) -> str:
    """Torch's name of a Flax parameter: ``layer1/0/conv1/kernel`` is ``layer1.0.conv1.weight``."""
    layer, kind = path.rsplit("/", 1)
    return f"{layer.replace('/', '.')}.{'bias' if kind == 'bias' else 'weight'}"


def _build(case: NetworkCase) -> tuple[Any, dict[str, str]]:
    """The dense network with the Flax network's values, and torch's parameter names by Flax path."""
    import torch

    model = case.model()
    values = {"/".join(map(str, path)): v for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    names = {path: _parameter_name(path) for path in values}
    net = network(model.stem == "small")
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for path, name in names.items():
            parameters[name].copy_(_torch.kernel_first(np.asarray(values[path][...])))
    return net, names


def _trainer(
    case: NetworkCase,
    net: Any,
    layout: Any,
    momenta: Callable[[Callable[[str], Any]], dict[str, np.ndarray]],
) -> Trainer:
    """Train a network; ``momenta`` reads all momenta, with a function that reads that of a named parameter."""
    import torch

    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
    images = _torch.channels_first(case.images).contiguous(memory_format=layout)
    labels = torch.from_numpy(case.labels.astype(np.int64))

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    parameters = dict(net.named_parameters())
    return Trainer(step, lambda: momenta(lambda name: optimizer.state[parameters[name]]["momentum_buffer"]))


def _flax_layout(tensor: Any) -> np.ndarray:
    array = tensor.detach().numpy().copy()  # the next step overwrites it
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array


def _dense(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    return {name: functools.partial(_dense_trainer, case, name) for name in ("contiguous", "channels_last")}


def _dense_trainer(case: NetworkCase, variant: str) -> Trainer:
    import torch

    layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    net, names = _build(case)

    def momenta(of: Callable[[str], Any]) -> dict[str, np.ndarray]:
        return {path: _flax_layout(of(name)) for path, name in names.items()}

    return _trainer(case, net.to(memory_format=layout), layout, momenta)


def _sparse_unsupported(case: NetworkCase) -> str | None:
    return None if case.batch % 8 == 0 else "batch not a multiple of 8, for which it computes something else"


def _sparse(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    """Its layers vectorised over the batch throughout, over rows where that works, and by the authors' rule."""
    first = case.image if case.image <= LARGEST_SMALL_IMAGE else case.image // 4
    side = {path: first >> (int(path[len("layer")]) - 1) for path in case.masks}
    choices: dict[frozenset[str], str] = {}
    for name, smallest in (("over batch", math.inf), ("over rows", 0), ("by size", _SMALL)):
        # Over rows at stride 2 it writes past the end of some rows: those layers stay over the batch.
        choices.setdefault(frozenset(p for p in case.masks if side[p] >= smallest and not _strided(p)), name)
    return {name: functools.partial(_sparse_trainer, case, rows) for rows, name in choices.items()}


def _strided(path: str) -> bool:
    """Whether the convolution has stride 2: the first of a stage after the first, and its shortcut."""
    stage, block, layer = path.split("/")[:3]
    return stage != "layer1" and block == "0" and layer != "conv2"


def _sparse_trainer(case: NetworkCase, rows: frozenset[str]) -> Trainer:
    import torch
    from sparseprop.modules import SparseConv2d  # pyright: ignore[reportMissingImports]
    from sparseprop.modules.utils import from_sparse_format_conv2d  # pyright: ignore[reportMissingImports]

    net, names = _build(case)
    layers = {}
    for path in case.masks:
        parent, _, child = path.replace("/", ".").rpartition(".")
        dense = net.get_submodule(f"{parent}.{child}")
        layers[path] = SparseConv2d.from_dense(dense, vectorizing_over_on=path in rows)
        setattr(net.get_submodule(parent), child, layers[path])

    def momenta(of: Callable[[str], Any]) -> dict[str, np.ndarray]:
        gradients = {}
        for path, name in names.items():
            layer = layers.get(path.removesuffix("/kernel"))
            if layer is None:
                gradients[path] = _flax_layout(of(name))
            else:
                values = of(name.removesuffix("weight") + "W_val")
                shape = (layer.OC, layer.IC, layer.K, layer.K)
                gradients[path] = _flax_layout(from_sparse_format_conv2d(values, layer.W_idx, shape))
        return gradients

    return _trainer(case, net, torch.contiguous_format, momenta)


DENSE = NetworkPeer("torch", _torch.absent, lambda case: None, _dense)
SPARSEPROP = NetworkPeer("sparseprop", sparseprop.PEER.absent, _sparse_unsupported, _sparse)
