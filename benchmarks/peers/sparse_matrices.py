"""Libraries with sparse matrices in CSR or coordinates: linear layers only, with feature-major activations, their best.

``mkl`` is MKL through sparse_dot_mkl, forward only: MKL has no product sampled at a pattern. ``torch_csr`` stands for
PyTorch's CSR tensors, MKL underneath. ``scipy`` takes its weight gradient from a dense product, sampled afterwards.
``bcsr`` stands for JAX's own sparse matrices, BCSR and BCOO.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from ..cases._case import FORWARD, STEP, Case
from . import _torch
from ._peer import Call, Peer, Variant, missing, only_linear

_SCIPY = "pip install scipy"
_MKL = "pip install sparse-dot-mkl mkl"


def _csr(case: Case) -> Any:
    """The kernel as a SciPy CSR matrix of shape (out, in); its entries are in the order of `Case.stored`."""
    from scipy.sparse import csr_array

    return csr_array(case.kernel.T)


def _feature_major(case: Case) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(case.x.T), np.ascontiguousarray(case.cotangent.T)


def _forward(run: Callable[[], Any]) -> Call:
    return Call(run, lambda y: {"y": np.asarray(y).T})


def _read_step(result: Any) -> dict[str, np.ndarray]:
    y, dx, dw = map(np.asarray, result)
    return {"y": y.T, "dx": dx.T, "dw": dw}


def _scipy(case: Case) -> list[Variant]:
    w = _csr(case)
    w_t, (x, cotangent) = w.T.tocsr(), _feature_major(case)
    rows, columns = w.tocoo().coords

    def step() -> Any:
        return w @ x, w_t @ cotangent, (cotangent @ x.T)[rows, columns]

    return [Variant("csr", {FORWARD: _forward(lambda: w @ x), STEP: Call(step, _read_step)})]


def _mkl_absent() -> str | None:
    # Wheels of MKL put the library where sparse_dot_mkl does not look.
    libraries = sorted((Path(sys.prefix) / "lib").glob("libmkl_rt.so*"))
    if libraries:
        os.environ.setdefault("MKL_RT", str(libraries[-1]))
    return missing("scipy", _SCIPY) or missing("sparse_dot_mkl", _MKL)


def _mkl(case: Case) -> list[Variant]:
    from scipy.sparse import csr_matrix
    from sparse_dot_mkl import dot_product_mkl  # pyright: ignore[reportMissingImports]

    w, (x, _) = csr_matrix(_csr(case)), _feature_major(case)
    return [Variant("csr", {FORWARD: _forward(lambda: dot_product_mkl(w, x))}), *_of_vector(dot_product_mkl, w, x)]


def _of_vector(product: Callable[[Any, Any], Any], w: Any, x: Any) -> list[Variant]:
    """A batch of one as a vector, for which libraries have another routine."""
    if x.shape[1] != 1:
        return []
    vector = x[:, 0]
    return [Variant("vector", {FORWARD: Call(lambda: product(w, vector), lambda y: {"y": np.asarray(y)[None]})})]


def _torch_csr(case: Case) -> list[Variant]:
    import torch

    def tensor(matrix: Any) -> Any:
        arrays = (torch.from_numpy(a) for a in (matrix.indptr, matrix.indices, matrix.data))
        return torch.sparse_csr_tensor(*arrays, size=matrix.shape, check_invariants=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        w = _csr(case)
        weight, transposed = tensor(w), tensor(w.T.tocsr())
    x, cotangent = map(torch.from_numpy, _feature_major(case))

    def step() -> Any:
        dw = torch.sparse.sampled_addmm(weight, cotangent, x.T, beta=0.0)
        return weight @ x, transposed @ cotangent, dw.values()

    both = {FORWARD: _forward(lambda: weight @ x), STEP: Call(step, _read_step)}
    return [Variant("csr", both), *_of_vector(operator.matmul, weight, x)]


def _bcsr(case: Case) -> list[Variant]:
    x, cotangent = map(jnp.array, _feature_major(case))
    formats = {"BCSR": sparse.BCSR.from_scipy_sparse(_csr(case)), "BCOO": sparse.BCOO.from_scipy_sparse(_csr(case))}

    # The indices are operands: XLA would spend minutes on folding what it could compute from constants.
    def product(matrix: Any, data: Any, x: Any) -> Any:
        return _with_data(matrix, data) @ x

    @jax.jit
    def step(matrix: Any, data: Any, x: Any, cotangent: Any) -> Any:
        y, pullback = jax.vjp(functools.partial(product, matrix), data, x)
        dw, dx = pullback(cotangent)
        return y, dx, dw

    forward = jax.jit(product)

    def variant(name: str, matrix: Any) -> Variant:
        operands = matrix, matrix.data, x
        return Variant(
            name,
            {
                FORWARD: _forward(lambda: jax.block_until_ready(forward(*operands))),
                STEP: Call(lambda: jax.block_until_ready(step(*operands, cotangent)), _read_step),
            },
        )

    return [variant(name, matrix) for name, matrix in formats.items()]


def _with_data(matrix: Any, data: Any) -> Any:
    """The same matrix with other values."""
    flags: dict[str, Any] = {"indices_sorted": True, "unique_indices": True, "shape": matrix.shape}
    if isinstance(matrix, sparse.BCSR):
        return sparse.BCSR((data, matrix.indices, matrix.indptr), **flags)
    return sparse.BCOO((data, matrix.indices), **flags)


SCIPY = Peer("scipy", lambda: missing("scipy", _SCIPY), only_linear, _scipy)
MKL = Peer("mkl", _mkl_absent, only_linear, _mkl)
TORCH_CSR = Peer("torch_csr", lambda: _torch.absent() or missing("scipy", _SCIPY), only_linear, _torch_csr)
BCSR = Peer("bcsr", lambda: missing("scipy", _SCIPY), only_linear, _bcsr)
