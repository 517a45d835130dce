"""What the implementations that run in PyTorch share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cases._case import FORWARD, STEP, Case
from ._peer import Call, missing

INSTALL = "pip install torch==2.13.0"


def absent() -> str | None:
    """Why there is no PyTorch."""
    return missing("torch", INSTALL)


def channels_first(array: np.ndarray) -> Any:
    """A contiguous tensor ``(batch, channels, *spatial)`` of a channels-last array; matrices stay as they are."""
    import torch

    return torch.from_numpy(np.array(np.moveaxis(array, -1, 1), order="C"))


def kernel_first(kernel: np.ndarray) -> Any:
    """A contiguous tensor ``(out, in, *window)`` of a Flax kernel; vectors stay as they are."""
    import torch

    order = np.moveaxis(kernel, (-1, -2), (0, 1)) if kernel.ndim > 1 else kernel
    return torch.from_numpy(np.array(order, order="C"))


def calls(
    case: Case,
    product: Callable[[Any], Any],
    weight: Any,
    x: Any,
    cotangent: Any,
    read_weight: Callable[[Any], np.ndarray],
) -> dict[str, Call]:
    """Forward without a graph, and forward with both gradients.

    Args:
      case: says how results are read.
      product: the layer as a function of its input.
      weight: the tensor whose gradient counts; ``read_weight`` brings it to the stored positions.
      x, cotangent: in the layout that the library likes best.
    """
    import torch

    leaf = x.detach().requires_grad_()  # shares memory and layout with x
    weight.requires_grad_()

    def forward() -> Any:
        with torch.no_grad():
            return product(x)

    def step() -> Any:
        y = product(leaf)
        return y, *torch.autograd.grad(y, (leaf, weight), cotangent)

    def read(tensor: Any) -> np.ndarray:
        return np.moveaxis(tensor.detach().float().numpy(), 1, -1)

    return {
        FORWARD: Call(forward, lambda y: {"y": read(y)}),
        STEP: Call(step, lambda r: {"y": read(r[0]), "dx": read(r[1]), "dw": read_weight(r[2])}),
    }


def stored(case: Case, tensor: Any) -> np.ndarray:
    """Stored positions of a dense ``(out, in, *window)`` tensor, in the order of `Case.stored`."""
    return case.stored(np.moveaxis(tensor.detach().float().numpy(), (0, 1), (-1, -2)))
