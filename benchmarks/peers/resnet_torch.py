"""ResNet-18 in PyTorch: dense, and with SparseProp's layers; parameters are those of the Flax network."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from ..cases._network import CLASSES, Trainer
from ..cases._resnet import ResNetCase
from . import _torch
from ._torch_trainer import read, trainer

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


def build(case: ResNetCase) -> tuple[Any, dict[str, str]]:
    """The dense network with the Flax network's values, and torch's parameter names by Flax path."""
    import torch

    values = {"/".join(map(str, path)): v for path, v in nnx.to_flat_state(nnx.state(case.model(), nnx.Param))}
    names = {path: _parameter_name(path) for path in values}
    net = network(case.small_stem)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for path, name in names.items():
            parameters[name].copy_(_torch.kernel_first(np.asarray(values[path][...])))
    return net, names


def _flax_layout(tensor: Any) -> np.ndarray:
    array = read(tensor)
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array


def dense(case: ResNetCase, precision: str, layout: str) -> Trainer:
    """Train the dense network; ``layout`` is "contiguous" or "channels_last"."""
    import torch

    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    net, names = build(case)

    def momenta(of: Callable[[str], Any]) -> dict[str, np.ndarray]:
        return {path: _flax_layout(of(name)) for path, name in names.items()}

    images = _torch.channels_first(case.inputs).contiguous(memory_format=form)
    return trainer(net.to(memory_format=form), images, case.labels, momenta, precision)


def sparse(case: ResNetCase) -> dict[str, Callable[[], Trainer]]:
    """SparseProp's layers vectorised over the batch, over rows where that works, and by the authors' rule."""
    first = case.image if case.small_stem else case.image // 4
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


def _sparse_trainer(case: ResNetCase, rows: frozenset[str]) -> Trainer:
    from sparseprop.modules import SparseConv2d  # pyright: ignore[reportMissingImports]
    from sparseprop.modules.utils import from_sparse_format_conv2d  # pyright: ignore[reportMissingImports]

    net, names = build(case)
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

    return trainer(net, _torch.channels_first(case.inputs), case.labels, momenta)
