"""A training step in PyTorch: in float32, in bfloat16 by autocast, or wholly in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..cases._network import LEARNING_RATE, MOMENTUM, Trainer

FLOAT32, AUTOCAST, PURE = "float32", "autocast", "pure"
BFLOAT16 = (AUTOCAST, PURE)


def read(tensor: Any) -> np.ndarray:
    """A copy as float32: the next step overwrites the tensor."""
    import torch

    return tensor.detach().to(torch.float32, copy=True).numpy()


def trainer(
    net: Any,
    inputs: Any,
    labels: np.ndarray,
    momenta: Callable[[Callable[[str], Any]], dict[str, np.ndarray]],
    precision: str = FLOAT32,
) -> Trainer:
    """Train a network with SGD and momentum.

    Args:
      net: module in float32.
      inputs: float32 tensor in the layout that the network likes best, or integer tokens.
      labels: int[batch], one per row of the logits.
      momenta: reads all momenta, with a function that reads that of a named parameter.
      precision: float32; "autocast", with float32 parameters and optimizer; or "pure", with both in bfloat16 too.
    """
    import torch

    if precision == PURE:
        net = net.to(torch.bfloat16)
        inputs = inputs.to(torch.bfloat16) if inputs.is_floating_point() else inputs
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM)
    targets = torch.from_numpy(labels.astype(np.int64))

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if precision == AUTOCAST else contextlib.nullcontext():
            loss = torch.nn.functional.cross_entropy(net(inputs).float(), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    parameters = dict(net.named_parameters())
    return Trainer(step, lambda: momenta(lambda name: optimizer.state[parameters[name]]["momentum_buffer"]))
