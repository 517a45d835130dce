"""SparseProp 0.1.14, the authors' package; convolutions vectorised over the batch and over image rows.

Cases in which it is known to crash, to write outside its buffers, or to compute something else are refused here; the
numbers in the comments are those of its known faults.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cases._case import Case
from . import _torch
from ._peer import Peer, Variant, missing

INSTALL = (
    "pip install torch==2.13.0 numpy scipy 'setuptools<80' wheel pybind11, "
    "then pip install --no-build-isolation sparseprop==0.1.14"
)
_MOST_IN_ROW = 2**15 - 1  # 8: int16 counts
_MOST_ON_STACK = (
    2**20
)  # 6: a private copy of the weight gradient is on the thread's stack of 8 MiB; half of that is used
_MOST_LINEAR = 2**24  # 12: row pointers pass through float32


def _unsupported(case: Case) -> str | None:
    shape = case.shape
    if shape.kind == "linear":
        return "more than 2**24 nonzeros" if case.nnz > _MOST_LINEAR else None
    if shape.kind == "conv1d":
        return "no 1-D convolution"
    if shape.window_h != shape.window_w or shape.pad_h != shape.pad_w:  # 9
        return "square windows and equal padding only"
    if shape.stride > 2:  # 10
        return "strides 1 and 2 only"
    if int(case.mask.reshape(-1, shape.out_features).sum(0).max()) > _MOST_IN_ROW:
        return "more than 32767 nonzeros in an output channel"
    if not _over_batch_works(case) and not _over_rows_works(case):
        return "batch not a multiple of 8, and the other vectorisation has no forward pass of its own at stride 2"
    return None


def _over_batch_works(case: Case) -> bool:
    return case.shape.batch % 8 == 0 and case.nnz <= _MOST_ON_STACK  # 1, 6


def _over_rows_works(case: Case) -> bool:
    if case.shape.stride == 1:
        return True
    # At stride 2 the forward pass is the other vectorisation's (1), and the backward pass writes past a row's end (14).
    return case.shape.batch % 8 == 0 and case.shape.out_spatial[1] % 8 != 0


def _prepare(case: Case) -> list[Variant]:
    if case.shape.kind == "linear":
        return _linear(case)
    variants = []
    if _over_batch_works(case):
        # Batch-last views are what its own layers of this kind hand on: its permutation then copies nothing.
        variants.append(_conv(case, "over batch", False, _batch_last(case.x), _batch_last(case.cotangent)))
    if _over_rows_works(case):
        operands = _torch.channels_first(case.x), _torch.channels_first(case.cotangent)
        variants.append(_conv(case, "over rows", True, *operands))
    return variants


def _batch_last(array: np.ndarray) -> Any:
    """A tensor ``(batch, channels, height, width)`` that lies in memory as ``(channels, height, width, batch)``."""
    return _torch.channels_first(array).permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def _linear(case: Case) -> list[Variant]:
    from sparseprop.modules import SparseLinear  # pyright: ignore[reportMissingImports]

    module = SparseLinear(_torch.kernel_first(case.kernel))
    operands = _torch.channels_first(case.x), _torch.channels_first(case.cotangent)
    # Its order of stored weights is ours: rows are outputs, ascending inside a row.
    return [Variant("linear", _torch.calls(case, module, module.W_val, *operands, lambda w: w.numpy()))]


def _conv(case: Case, name: str, over_rows: bool, x: Any, cotangent: Any) -> Variant:
    from sparseprop.modules import SparseConv2d  # pyright: ignore[reportMissingImports]
    from sparseprop.modules.utils import from_sparse_format_conv2d  # pyright: ignore[reportMissingImports]

    shape = case.shape
    module = SparseConv2d(
        _torch.kernel_first(case.kernel), padding=shape.pad_h, stride=shape.stride, vectorizing_over_on=over_rows
    )
    dense_shape = (shape.out_features, shape.in_features, shape.window_h, shape.window_w)

    def read_weight(values: Any) -> np.ndarray:
        return _torch.stored(case, from_sparse_format_conv2d(values.contiguous(), module.W_idx, dense_shape))

    return Variant(name, _torch.calls(case, module, module.W_val, x, cotangent, read_weight))


PEER = Peer(
    "sparseprop",
    absent=lambda: _torch.absent() or missing("sparseprop", INSTALL),
    unsupported=_unsupported,
    prepare=_prepare,
)
