"""Construction, checks, gather and scatter, and behaviour of a pattern as a pytree."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.grid import PATTERNS, entry_positions, make_mask, make_pattern, normal
from sparsejax import SparsityPattern, conv, spmm

pytestmark = pytest.mark.usefixtures("strict_dtypes")
FIELDS = ("indptr", "indices", "indptr_t", "indices_t", "perm_t")
SHAPES = ((6, 5), (1, 1), (3, 2, 4), (3, 3, 2, 4), (17, 1), (1, 17))


def expected_arrays(mask: np.ndarray, nse: int) -> dict[str, np.ndarray]:
    """The five arrays straight from their definition."""
    row, column = entry_positions(mask)
    order = np.lexsort((row, column))  # position in ``data`` of each entry, in column order
    matrix = mask.reshape(-1, mask.shape[-1])
    padding = nse - row.size
    return {
        "indptr": np.concatenate([[0], np.cumsum(matrix.sum(axis=0))]),
        "indices": np.concatenate([column, np.zeros(padding)]),
        "indptr_t": np.concatenate([[0], np.cumsum(matrix.sum(axis=1))]),
        "indices_t": np.concatenate([row[order], np.zeros(padding)]),
        "perm_t": np.concatenate([order, np.arange(row.size, nse)]),
    }


def assert_arrays(pattern: SparsityPattern, expected: dict[str, np.ndarray]) -> None:
    """Equal numbers, as int32."""
    for name in FIELDS:
        array = getattr(pattern, name)
        assert array.dtype == jnp.int32, name
        assert np.array_equal(array, expected[name]), name


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_host_and_traced_construction(kind: str, shape: tuple[int, ...]) -> None:
    mask = make_mask(kind, shape, np.random.default_rng(0))
    for nse in (int(mask.sum()), int(mask.sum()) + 7):
        expected = expected_arrays(mask, nse)
        host = SparsityPattern.from_mask(mask, nse)
        traced = jax.jit(lambda m, n=nse: SparsityPattern.from_mask(m, n))(mask)
        for pattern in (host, traced):
            assert_arrays(pattern.validate(), expected)
            assert pattern.shape == shape and pattern.nse == nse
            assert pattern.rows == shape[-1] and pattern.columns == mask.size // shape[-1]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(bits=st.binary(min_size=84, max_size=84), threshold=st.sampled_from([-1, 60, 127, 230, 255]))
def test_any_mask(bits: bytes, threshold: int) -> None:
    mask = (np.frombuffer(bits, np.uint8).astype(int) > threshold).reshape(12, 7)
    expected = expected_arrays(mask, 90)
    assert_arrays(SparsityPattern.from_mask(mask, 90).validate(), expected)
    assert_arrays(build_ninety(mask), expected)


@jax.jit
def build_ninety(mask: Any) -> SparsityPattern:
    """Traced construction of a pattern with room for 90 entries."""
    return SparsityPattern.from_mask(mask, 90)


@pytest.mark.parametrize("view", [lambda m: m.T, lambda m: m[::2], lambda m: m[:, ::-1], np.asfortranarray])
def test_masks_in_any_layout(view: Any) -> None:
    mask = view(make_mask("random", (8, 6), np.random.default_rng(0)))
    assert_arrays(SparsityPattern.from_mask(mask), expected_arrays(np.ascontiguousarray(mask), int(mask.sum())))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 0, 4)])
def test_kernels_without_entries_or_axes(shape: tuple[int, ...]) -> None:
    host = SparsityPattern.from_mask(np.zeros(shape, bool)).validate()
    traced = jax.jit(lambda m: SparsityPattern.from_mask(m, 0))(np.zeros(shape, bool))
    assert host.nse == 0 and host.sparsity == 0.0
    for name in FIELDS:
        assert np.array_equal(getattr(host, name), getattr(traced, name))


def test_from_dense_and_back() -> None:
    kernel = np.where(make_mask("gaps", (3, 3, 2, 4), np.random.default_rng(0)), normal(1, (3, 3, 2, 4), "float32"), 0)
    pattern = SparsityPattern.from_dense(kernel)
    assert np.array_equal(pattern.mask(), kernel != 0)
    assert np.array_equal(pattern.scatter(pattern.gather(kernel)), kernel)
    traced = jax.jit(lambda k: SparsityPattern.from_dense(k, pattern.nse))(kernel)
    assert np.array_equal(traced.indices, pattern.indices)
    assert pattern.sparsity == pytest.approx(np.mean(kernel == 0))


@pytest.mark.parametrize("kind", PATTERNS)
def test_gather_and_scatter(kind: str) -> None:
    pattern, mask = make_pattern(kind, (3, 3, 2, 4))
    kernel, data = normal(0, mask.shape, "float32"), normal(1, (pattern.nse,), "float32")
    row, column = entry_positions(mask)
    gathered, scattered = np.asarray(pattern.gather(kernel)), np.asarray(pattern.scatter(data))
    assert np.array_equal(gathered[: row.size], kernel.reshape(-1, 4)[column, row])
    assert not gathered[row.size :].any()
    assert np.array_equal(scattered.reshape(-1, 4)[column, row], data[: row.size])
    assert not scattered[~mask].any()
    assert np.array_equal(pattern.mask(), mask)
    assert np.array_equal(pattern.row_of_entry(), np.concatenate([row, np.full(pattern.nse - row.size, 4)]))


def test_gradients_of_gather_and_scatter() -> None:
    """Each is the other's transpose, and the padding has no gradient."""
    pattern, mask = make_pattern("padded", (6, 5))
    kernel, data = normal(0, (6, 5), "float32"), normal(1, (pattern.nse,), "float32")
    _, gather_vjp = jax.vjp(pattern.gather, jnp.asarray(kernel))
    _, scatter_vjp = jax.vjp(pattern.scatter, jnp.asarray(data))
    assert np.array_equal(gather_vjp(jnp.asarray(data))[0], pattern.scatter(data))
    assert np.array_equal(scatter_vjp(jnp.asarray(kernel))[0], pattern.gather(kernel))
    assert not np.asarray(scatter_vjp(jnp.asarray(kernel))[0])[mask.sum() :].any()
    _, tangent = jax.jvp(pattern.gather, (jnp.asarray(kernel),), (jnp.asarray(kernel),))
    assert np.array_equal(tangent, pattern.gather(kernel))


def test_gather_and_scatter_refuse_other_shapes() -> None:
    pattern, _ = make_pattern("random", (6, 5))
    message = "SparsityPattern.gather: kernel has shape (5, 6); expected shape (6, 5)."
    with pytest.raises(ValueError, match=re.escape(message)):
        pattern.gather(np.ones((5, 6)))
    message = f"SparsityPattern.scatter: data has shape (3,); expected shape ({pattern.nse},)."
    with pytest.raises(ValueError, match=re.escape(message)):
        pattern.scatter(np.ones(3))


def test_pad_to() -> None:
    pattern, mask = make_pattern("random", (6, 5))
    wider = pattern.pad_to(pattern.nse + 4).validate()
    assert_arrays(wider, expected_arrays(mask, pattern.nse + 4))
    assert pattern.pad_to(pattern.nse).nse == pattern.nse
    message = f"SparsityPattern.pad_to: nse has value 1; expected at least the present capacity {pattern.nse}."
    with pytest.raises(ValueError, match=re.escape(message)):
        pattern.pad_to(1)


VALIDATE = {
    "rank": ("indptr", lambda a: a[None], "indptr has shape (1, 6); expected shape (6,)."),
    "length": ("indptr", lambda a: a[:-1], "indptr has shape (5,); expected shape (6,)."),
    "length_t": ("perm_t", lambda a: a[:-1], "perm_t has shape (NSE-1,); expected shape (NSE,)."),
    "dtype": ("indices", lambda a: a.astype(np.int64), "indices has dtype int64; expected dtype int32."),
    "first": ("indptr", lambda a: a + 1, "indptr has first element 1; expected first element 0."),
    "decrease": ("indptr", lambda a: put(a, 1, a[2] + 1), "indptr has a decrease after element 1"),
    "capacity": ("indptr", lambda a: put(a, -1, 99), "indptr has last element 99; expected at most nse = NSE."),
    "range": ("indices", lambda a: put(a, 0, 6), "indices has element 0 equal to 6; expected a value in [0, 6)."),
    "negative": ("indices_t", lambda a: put(a, 1, -1), "indices_t has element 1 equal to -1; expected a value in"),
    "duplicate": ("indices", lambda a: put(a, 1, a[0]), "indices has a duplicate at elements 0 and 1"),
    "unsorted": ("indices", lambda a: put(put(a, 0, a[1]), 1, a[0]), "indices has an unsorted pair at elements"),
    "permutation": ("perm_t", lambda a: put(a, 0, -1), "perm_t has a value out of range; expected values in [0, NSE)."),
    "swapped": ("perm_t", lambda a: put(put(a, 0, a[1]), 1, a[0]), "perm_t has entries that differ from the row"),
    "total": ("indptr_t", lambda a: put(a, -1, a[-1] - 1), "indptr_t has last element NSE-1; expected NSE, the last"),
}


def put(array: np.ndarray, at: int, value: Any) -> np.ndarray:
    """A copy with one number changed."""
    changed = np.array(array)
    changed[at] = value
    return changed


@pytest.mark.parametrize("name", VALIDATE)
def test_validate(name: str) -> None:
    pattern, _ = make_pattern("random", (6, 5), seed=1)
    field, change, message = VALIDATE[name]
    bad = dataclasses.replace(pattern, **{field: change(np.asarray(getattr(pattern, field)))})
    message = message.replace("NSE-1", str(pattern.nse - 1)).replace("NSE", str(pattern.nse))
    with pytest.raises(ValueError, match=re.escape(f"SparsityPattern.validate: {message}")):
        bad.validate()


def test_tracing_needs_a_capacity() -> None:
    message = "SparsityPattern.from_mask: nse has no value; expected a capacity, because the mask is traced."
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.jit(SparsityPattern.from_mask)(np.ones((2, 2), bool))


def test_more_entries_than_capacity_under_jit_are_refused_when_a_kernel_runs() -> None:
    @jax.jit
    def run(mask: Any, data: Any, x: Any) -> Any:
        return spmm(data, SparsityPattern.from_mask(mask, 6), x)

    mask, data, x = np.zeros((4, 3), bool), np.ones(6, np.float32), np.ones((2, 4), np.float32)
    mask[:2] = True
    assert np.array_equal(run(mask, data, x), np.full((2, 3), 2))
    mask[2, 0] = True
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="indptr has last element 7; expected at most"):
        jax.block_until_ready(run(mask, data, x))


def test_topology_changes_without_recompiling() -> None:
    traces = []

    @jax.jit
    def run(data: Any, pattern: SparsityPattern, x: Any) -> Any:
        traces.append(pattern)
        return conv(data, pattern, x)

    x = jnp.ones((2, 5, 5, 2))
    for seed in range(3):
        mask = make_mask("random", (3, 3, 2, 4), np.random.default_rng(seed))
        pattern = SparsityPattern.from_mask(mask, 60)
        closed = jax.jit(lambda d, p=pattern: conv(d, p, x))(jnp.ones(60))
        assert np.array_equal(run(jnp.ones(60), pattern, x), closed)
        assert np.array_equal(closed[0, 2, 2], mask.sum(axis=(0, 1, 2)))
    assert len(traces) == 1


def test_pytree() -> None:
    pattern, _ = make_pattern("random", (6, 5))
    leaves, tree = jax.tree.flatten(pattern)
    assert [leaf.shape for leaf in leaves] == [getattr(pattern, name).shape for name in FIELDS]
    again = jax.tree.unflatten(tree, leaves)
    assert again.shape == (6, 5)
    assert_arrays(again, {name: np.asarray(getattr(pattern, name)) for name in FIELDS})
    other = jax.tree.structure(make_pattern("random", (5, 6))[0])
    assert tree != other  # the shape is static
    with pytest.raises(dataclasses.FrozenInstanceError):
        pattern.shape = (1, 1)


def test_repr() -> None:
    pattern = SparsityPattern.from_mask(np.eye(4, dtype=bool), 6)
    assert repr(pattern) == "SparsityPattern(shape=(4, 4), nse=6, sparsity=0.75)"
    seen = []
    jax.jit(lambda p: seen.append(repr(p)))(pattern)
    assert seen == ["SparsityPattern(shape=(4, 4), nse=6)"]
    assert "shape=(4, 4)" in repr(jax.tree.map(lambda _: None, pattern))


def test_large_pattern_is_built_quickly() -> None:
    """The best of three, so that a busy machine does not fail it; measured at about 0.1 s."""
    mask = np.random.default_rng(0).random((4096, 4096)) < 0.1
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        SparsityPattern.from_mask(mask)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5, seconds
