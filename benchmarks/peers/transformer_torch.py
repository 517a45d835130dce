"""The transformers in PyTorch, dense: one product for queries, keys and values, and PyTorch's own fused attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from ..cases._network import CLASSES, Trainer
from ..cases._transformer import EPSILON, Size, TransformerCase
from ._torch_trainer import read, trainer

_PROJECTIONS = ("query", "key", "value")


def network(size: Size) -> Any:
    """The network of `TransformerCase`; the rows of ``qkv`` are those of queries, keys and values in turn."""
    from torch.nn import GELU, LayerNorm, Linear, Module, Sequential, functional

    class Block(Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = (LayerNorm(size.width, EPSILON) for _ in range(2))
            self.qkv, self.out = Linear(size.width, 3 * size.width), Linear(size.width, size.width)
            self.fc1, self.fc2 = Linear(size.width, size.hidden), Linear(size.hidden, size.width)
            self.gelu = GELU()

        def forward(self, x: Any) -> Any:
            batch, tokens, width = x.shape
            heads = self.qkv(self.norm1(x)).view(batch, tokens, 3, size.heads, width // size.heads)
            q, k, v = heads.permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
            x = x + self.out(y)
            return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))

    class Network(Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = Sequential(*(Block() for _ in range(size.blocks)))
            self.norm = LayerNorm(size.width, EPSILON)
            self.fc = Linear(size.width, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.fc(self.norm(self.blocks(x)).mean(1))

    return Network()


def _place(path: str, width: int) -> tuple[str, slice]:
    """Torch's parameter of a Flax path, and its rows: ``blocks/0/attention/key/kernel`` is a part of a ``qkv``."""
    layer, kind = path.rsplit("/", 1)
    parent, _, name = layer.rpartition("/")
    suffix = "bias" if kind == "bias" else "weight"
    if parent.endswith("/attention"):
        block = parent.removesuffix("/attention").replace("/", ".")
        if name in _PROJECTIONS:
            first = width * _PROJECTIONS.index(name)
            return f"{block}.qkv.{suffix}", slice(first, first + width)
        return f"{block}.{name}.{suffix}", slice(None)
    return f"{layer.replace('/', '.')}.{suffix}", slice(None)


def _rows(path: str, array: np.ndarray) -> np.ndarray:
    """A parameter of Flax as PyTorch has it: outputs first, heads and features of a head one axis."""
    if not path.endswith("/kernel"):
        return array.reshape(-1)
    inputs = array.shape[0] * (array.shape[1] if path.endswith("/out/kernel") else 1)
    return array.reshape(inputs, -1).T


def dense(case: TransformerCase, precision: str) -> Trainer:
    """Train the dense network."""
    import torch

    state = nnx.to_flat_state(nnx.state(case.model(), nnx.Param))
    values = {"/".join(map(str, path)): np.asarray(v[...]) for path, v in state}
    net = network(case.size)
    parameters = dict(net.named_parameters())
    places = {path: _place(path, case.size.width) for path in values}
    with torch.no_grad():
        for path, (name, rows) in places.items():
            parameters[name][rows].copy_(torch.from_numpy(_rows(path, values[path]).copy()))

    def momenta(of: Callable[[str], Any]) -> dict[str, np.ndarray]:
        return {path: read(of(name)[rows]).T.reshape(values[path].shape) for path, (name, rows) in places.items()}

    return trainer(net, torch.from_numpy(case.inputs), case.labels, momenta, precision)
