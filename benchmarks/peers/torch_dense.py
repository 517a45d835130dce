"""PyTorch's dense layers (oneDNN and MKL), on the same kernel with zeros; contiguous and channels-last.

In float32, and in bfloat16 as peers of their own, whose results have eight bits where float32 has 24: with all
operands in bfloat16; or under ``torch.autocast``, with bfloat16 activations and a float32 kernel that each call casts.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from ..cases._case import BFLOAT16_TOLERANCE, TOLERANCE, Case
from . import _torch
from ._peer import Peer, Variant

_FLOAT32, _BFLOAT16, _AUTOCAST = "torch", "torch_bfloat16", "torch_autocast"


def _prepare(case: Case, name: str) -> list[Variant]:
    import torch
    from torch.nn import functional

    shape = case.shape
    activations = torch.float32 if name == _FLOAT32 else torch.bfloat16
    kernel = _torch.kernel_first(case.kernel).to(torch.bfloat16 if name == _BFLOAT16 else torch.float32)
    operands = [kernel, *(_torch.channels_first(a).to(activations) for a in (case.x, case.cotangent))]
    stored = functools.partial(_torch.stored, case)

    def variant(layout: str, weight: Any, x: Any, cotangent: Any) -> Variant:
        def product(x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16) if name == _AUTOCAST else contextlib.nullcontext():
                if shape.kind == "linear":
                    return functional.linear(x, weight)
                conv = functional.conv2d if shape.kind == "conv" else functional.conv1d
                return conv(x, weight, stride=shape.stride, padding=tuple(pad for _, _, pad in shape.axes))

        return Variant(layout, _torch.calls(case, product, weight, x, cotangent, stored))

    variants = [variant("contiguous", *operands)]
    if shape.kind == "conv":
        last = (a.contiguous(memory_format=torch.channels_last) for a in operands)
        variants.append(variant("channels_last", *last))
    return variants


PEER, BFLOAT16, AUTOCAST = (
    Peer(
        name,
        absent=_torch.absent,
        unsupported=lambda case: None,
        prepare=functools.partial(_prepare, name=name),
        tolerance=TOLERANCE if name == _FLOAT32 else BFLOAT16_TOLERANCE,
    )
    for name in (_FLOAT32, _BFLOAT16, _AUTOCAST)
)
