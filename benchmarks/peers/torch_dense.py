"""PyTorch's dense layers (oneDNN and MKL), on the same kernel with zeros; contiguous and channels-last.

In float32, and in bfloat16 as a contestant of its own: its results have eight bits, ours of float32 have 24.
"""

from __future__ import annotations

import functools
from typing import Any

from ..cases._case import TOLERANCE, Case
from . import _torch
from ._peer import Peer, Variant


def _prepare(case: Case, dtype: str) -> list[Variant]:
    import torch
    from torch.nn import functional

    shape = case.shape
    contiguous = _torch.kernel_first(case.kernel), _torch.channels_first(case.x), _torch.channels_first(case.cotangent)
    operands = [a.to(getattr(torch, dtype)) for a in contiguous]
    stored = functools.partial(_torch.stored, case)

    def variant(name: str, weight: Any, x: Any, cotangent: Any) -> Variant:
        def product(x: Any) -> Any:
            if shape.kind == "linear":
                return functional.linear(x, weight)
            conv = functional.conv2d if shape.kind == "conv" else functional.conv1d
            return conv(x, weight, stride=shape.stride, padding=tuple(pad for _, _, pad in shape.axes))

        return Variant(name, _torch.calls(case, product, weight, x, cotangent, stored))

    variants = [variant("contiguous", *operands)]
    if shape.kind == "conv":
        last = (a.contiguous(memory_format=torch.channels_last) for a in operands)
        variants.append(variant("channels_last", *last))
    return variants


PEER, BFLOAT16 = (
    Peer(
        name,
        absent=_torch.absent,
        unsupported=lambda case: None,
        prepare=functools.partial(_prepare, dtype=dtype),
        tolerance=tolerance,
    )
    # A product of bfloat16 numbers is off by 2**-8 of its size, and the largest of many by several times as much.
    for name, dtype, tolerance in (("torch", "float32", TOLERANCE), ("torch_bfloat16", "bfloat16", 0.1))
)
