"""Three loops that know nothing about pruning, with a wrapped optimizer: exact zeros, exact counts, less loss."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import data, pruning

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import loop_nnx
import loop_optax
import loop_scan


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def check_zeros(params, opt_state, sparsity):
    """Every weight outside the mask is exactly 0, and the mask has exactly the promised count."""
    masks = jax.tree.leaves(pruning.get_mask(opt_state))
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim >= 2]
    assert [mask.shape for mask in masks] == [kernel.shape for kernel in kernels]
    for mask, kernel in zip(masks, kernels, strict=True):
        assert not np.asarray(kernel)[~np.asarray(mask)].any()
    size = sum(mask.size for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == size - round(sparsity * size)
    assert sum(int((kernel != 0).sum()) for kernel in kernels) <= size - round(sparsity * size)


def test_plain_optax_loop_with_acdc(digits):
    params, opt_state, losses = loop_optax.train(loop_optax.optimizer(), digits)
    check_zeros(params, opt_state, 0.9)
    assert losses[-1] < 0.25 * losses[0]


def test_nnx_optimizer_loop_with_rigl(digits):
    model, optimizer, losses = loop_nnx.train(loop_nnx.pruning_optimizer(), digits)
    check_zeros(nnx.state(model, nnx.Param), optimizer.opt_state, 0.9)
    assert losses[-1] < 0.25 * losses[0]


def test_scanned_loop_with_gradual_pruning(digits):
    params, opt_state, losses = loop_scan.train(loop_scan.optimizer(), digits)
    check_zeros(params, opt_state, 0.95)
    assert losses[-20:].mean() < 0.25 * losses[0]


@pytest.mark.parametrize("example", [loop_optax, loop_nnx, loop_scan])
def test_the_loop_itself_does_not_know_pruning(example):
    assert "prun" not in inspect.getsource(example.train)


def test_a_loop_takes_a_plain_optimizer_too(digits):
    params, _, losses = loop_scan.train(optax.adamw(3e-3), digits)
    assert losses[-20:].mean() < 0.25 * losses[0]
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
