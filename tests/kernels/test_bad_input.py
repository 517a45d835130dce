"""Each wrong input raises an error that names the operand, what came and what was expected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.grid import make_pattern, normal
from helpers.processes import LITTLE_OPTIMIZED, run_python, tail
from sparsejax import SparsityPattern, conv, spmm
from sparsejax.kernels import sddmm, spmm_t

MATRIX, _ = make_pattern("random", (6, 5))
KERNEL, _ = make_pattern("random", (3, 3, 2, 4))
DATA, FILTERS = normal(0, (MATRIX.nse,), "float32"), normal(1, (KERNEL.nse,), "float32")
X, Y, IMAGE = np.ones((7, 6), np.float32), np.ones((7, 5), np.float32), np.ones((2, 8, 8, 2), np.float32)


def check(call: Callable[[], Any], message: str, error: type[Exception] = ValueError) -> None:
    """The whole text of the error is the message."""
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


SHAPES = {
    "data longer": (
        lambda: spmm(np.ones(MATRIX.nse + 1, np.float32), MATRIX, X),
        f"spmm: data has shape ({MATRIX.nse + 1},); expected shape ({MATRIX.nse},) to match the pattern's nse.",
    ),
    "data dense": (
        lambda: spmm(np.ones((6, 5), np.float32), MATRIX, X),
        f"spmm: data has shape (6, 5); expected shape ({MATRIX.nse},) to match the pattern's nse. "
        "A dense kernel is turned into data by pattern.gather(kernel).",
    ),
    "x transposed": (
        lambda: spmm(DATA, MATRIX, X.T),
        "spmm: x has shape (6, 7); expected last axis 6 to match the first axis of the pattern.",
    ),
    "x scalar": (
        lambda: spmm(DATA, MATRIX, np.float32(1)),
        "spmm: x has shape (); expected last axis 6 to match the first axis of the pattern.",
    ),
    "spmm_t of x": (
        lambda: spmm_t(DATA, MATRIX, X),
        "spmm_t: y has shape (7, 6); expected last axis 5 to match the last axis of the pattern.",
    ),
    "sddmm batches": (
        lambda: sddmm(MATRIX, X, Y[:3]),
        "sddmm: y has leading axes (3,); expected (7,), those of x.",
    ),
    "spmm of a window kernel": (
        lambda: spmm(FILTERS, KERNEL, X),
        "spmm: pattern has shape (3, 3, 2, 4); expected two axes (in, out). See conv for window kernels.",
    ),
    "conv of a matrix": (
        lambda: conv(DATA, MATRIX, IMAGE),
        "conv: pattern has shape (6, 5); expected one or two window axes, then (in // groups, out).",
    ),
    "conv of one axis": (
        lambda: conv(FILTERS, KERNEL, np.ones((8, 2), np.float32)),
        "conv: x has shape (8, 2); expected at least 3 axes: 2 spatial and the features.",
    ),
    "conv features": (
        lambda: conv(FILTERS, KERNEL, np.ones((2, 8, 8, 3), np.float32)),
        "conv: x has shape (2, 8, 8, 3); expected last axis 2 to match the input features (in // groups * groups) "
        "of the pattern.",
    ),
    "groups": (
        lambda: conv(FILTERS, KERNEL, IMAGE, feature_group_count=3),
        "conv: feature_group_count has value 3; expected a positive divisor of the 4 outputs.",
    ),
    "no groups": (
        lambda: conv(FILTERS, KERNEL, IMAGE, feature_group_count=0),
        "conv: feature_group_count has value 0; expected a positive divisor of the 4 outputs.",
    ),
    "stride": (
        lambda: conv(FILTERS, KERNEL, IMAGE, strides=0),
        "conv: strides has value 0; expected a positive integer, or 2 of them.",
    ),
    "dilation": (
        lambda: conv(FILTERS, KERNEL, IMAGE, kernel_dilation=(1, -2)),
        "conv: kernel_dilation has value (1, -2); expected a positive integer, or 2 of them.",
    ),
    "window that does not fit": (
        lambda: conv(FILTERS, KERNEL, IMAGE, padding="VALID", kernel_dilation=4),
        "conv: x has spatial shape (8, 8); expected room for the dilated window (3, 3) with padding ((0, 0), (0, 0)).",
    ),
    "another pattern": (
        lambda: spmm(DATA, KERNEL, X),
        f"spmm: data has shape ({MATRIX.nse},); expected shape ({KERNEL.nse},) to match the pattern's nse.",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    check(*SHAPES[name])


@pytest.mark.parametrize("padding", ["REFLECT", "same", (1,), ((1, 2, 3), 1), (1.5, 1), None])
def test_padding(padding: Any) -> None:
    message = (
        f"conv: padding has value {padding!r}; expected SAME, VALID, CIRCULAR, CAUSAL, an integer, "
        "or 2 integers or (low, high) pairs."
    )
    check(lambda: conv(FILTERS, KERNEL, IMAGE, padding=padding), message)


def test_causal_padding_of_two_axes() -> None:
    message = "conv: padding has value 'CAUSAL' with 2 spatial axes; expected one spatial axis."
    check(lambda: conv(FILTERS, KERNEL, IMAGE, padding="CAUSAL"), message)


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64", "bool"])
def test_dtypes_without_kernels(dtype: str) -> None:
    message = f"spmm: data has dtype {dtype}; expected dtype float32, float64 or bfloat16."
    check(lambda: spmm(DATA.astype(dtype), MATRIX, X), message)
    message = f"conv: x has dtype {dtype}; expected dtype float32, float64 or bfloat16."
    check(lambda: conv(FILTERS, KERNEL, IMAGE.astype(dtype)), message)


def test_dtypes_that_differ() -> None:
    message = "spmm: x has dtype bfloat16; expected dtype float32, that of the other operand. Cast one of the two."
    check(lambda: spmm(DATA, MATRIX, jnp.asarray(X, jnp.bfloat16)), message)


def test_pattern_of_another_type() -> None:
    message = "spmm: pattern has type ndarray; expected a SparsityPattern."
    check(lambda: spmm(DATA, np.ones((6, 5), bool), X), message, TypeError)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.array([[np.nan, 1.0]]),
            "mask has dtype float64 with NaN entries; expected dtype bool. "
            "Write mask != 0 if zeros mark pruned entries.",
        ),
        (
            np.array([[0, 1]]),
            "mask has dtype int64; expected dtype bool. Write mask != 0 if zeros mark pruned entries.",
        ),
        (np.array([True]), "mask has shape (1,); expected two or more axes, the last one the outputs."),
        ([[True]], "mask has type list; expected an array."),
    ],
)
def test_masks(mask: Any, message: str) -> None:
    check(lambda: SparsityPattern.from_mask(mask), f"SparsityPattern.from_mask: {message}")


def test_mask_beyond_the_capacity() -> None:
    message = "SparsityPattern.from_mask: mask has 4 entries; expected at most nse = 3."
    check(lambda: SparsityPattern.from_mask(np.ones((2, 2), bool), nse=3), message)


@pytest.mark.parametrize("field", ["indptr", "indices", "indptr_t", "indices_t", "perm_t"])
def test_arrays_of_a_pattern_are_checked_when_tracing(field: str) -> None:
    array = getattr(MATRIX, field)
    longer = dataclasses.replace(MATRIX, **{field: jnp.concatenate([array, array[:1]])})
    with pytest.raises(ValueError, match=r"SparsityPattern: \w+ has shape \(\d+,\); expected shape \(\d+,\)|data has"):
        spmm(DATA, longer, X)
    wrong = dataclasses.replace(MATRIX, **{field: array.astype(jnp.float32)})
    message = f"SparsityPattern: {field} has dtype float32; expected dtype int32."
    check(lambda: spmm(DATA, wrong, X), message)


def call_matrix(pattern: SparsityPattern) -> dict[str, Callable[[], Any]]:
    """The products on a pattern of MATRIX's shape, and both gradients."""
    return {
        "sparsejax_spmm_backward": lambda: jax.vjp(lambda d, v: spmm(d, pattern, v), DATA, X)[1](Y),
        "sparsejax_spmm": lambda: spmm(DATA, pattern, X),
        "sparsejax_spmm_t": lambda: spmm_t(DATA, pattern, Y),
        "sparsejax_sddmm": lambda: sddmm(pattern, X, Y),
    }


def call_conv(pattern: SparsityPattern) -> dict[str, Callable[[], Any]]:
    """The convolution, and each of its gradients alone and both."""

    def f(d: Any, v: Any) -> Any:
        return conv(d, pattern, v)

    ct = np.ones((2, 8, 8, 4), np.float32)
    data = jax.ShapeDtypeStruct(FILTERS.shape, FILTERS.dtype)
    x = jax.ShapeDtypeStruct(IMAGE.shape, IMAGE.dtype)
    return {
        "sparsejax_conv": lambda: f(FILTERS, IMAGE),
        "sparsejax_conv_input_grad": lambda: jax.linear_transpose(lambda v: f(FILTERS, v), x)(ct),
        "sparsejax_conv_backward": lambda: jax.vjp(f, FILTERS, IMAGE)[1](ct),
        "sparsejax_conv_weight_grad": lambda: jax.linear_transpose(lambda d: f(d, IMAGE), data)(ct),
    }


def spoiled(pattern: SparsityPattern, field: str, position: int, value: int) -> SparsityPattern:
    """The pattern with one number changed."""
    return dataclasses.replace(pattern, **{field: getattr(pattern, field).at[position].set(value)})


FAULTS = {
    "indices": ((0, 10**6, "value 1000000 at element 0; expected values in"), (3, -1, "value -1 at element 3")),
    "indptr": ((0, 1, "first element 1; expected 0"), (2, -5, "a decrease after element 1; expected pointers that")),
    "indices_t": ((0, 99, "value 99 at element 0; expected values in"), (3, -1, "value -1 at element 3")),
    "indptr_t": ((0, 1, "first element 1; expected 0"), (2, -5, "a decrease after element 1; expected pointers that")),
    "perm_t": ((0, 10**6, "value 1000000 at element 0; expected values in"), (3, -1, "value -1 at element 3")),
}
READERS = {
    "indices": ("sparsejax_spmm", "sparsejax_sddmm", "sparsejax_conv", "sparsejax_conv_weight_grad"),
    "indptr": ("sparsejax_spmm", "sparsejax_sddmm", "sparsejax_conv", "sparsejax_conv_weight_grad"),
    **dict.fromkeys(
        ("indices_t", "indptr_t", "perm_t"),
        ("sparsejax_spmm_t", "sparsejax_spmm_backward", "sparsejax_conv_input_grad", "sparsejax_conv_backward"),
    ),
}


@pytest.mark.parametrize(("field", "reader"), [(f, r) for f, readers in READERS.items() for r in readers])
def test_index_values_are_checked_on_every_call(field: str, reader: str) -> None:
    """No transformation sees these values; the handlers do, also after a right call whose checked plan they keep."""
    pattern, calls = (KERNEL, call_conv) if "conv" in reader else (MATRIX, call_matrix)
    for position, value, message in FAULTS[field]:
        jax.block_until_ready(calls(pattern)[reader]())
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
            jax.block_until_ready(calls(spoiled(pattern, field, position, value))[reader]())
        assert f"{reader}: {field} has {message}" in str(caught.value)


@pytest.mark.parametrize(("field", "reader"), [("indptr", "sparsejax_spmm"), ("indptr_t", "sparsejax_spmm_t")])
def test_more_entries_than_capacity(field: str, reader: str) -> None:
    calls = call_matrix(spoiled(MATRIX, field, -1, MATRIX.nse + 1))
    message = f"{reader}: {field} has last element {MATRIX.nse + 1}; expected at most nse = {MATRIX.nse}."
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=message):
        jax.block_until_ready(calls[reader]())


def test_gradients_are_defined_for_any_positions() -> None:
    """A ``perm_t`` that is no permutation: nothing of the results' old memory, and the same bits in every run."""
    poison = {"SPARSEJAX_POISON": "1"} | LITTLE_OPTIMIZED
    process = run_python("-m", "helpers.positions_worker", timeout=400, env=poison)
    assert process.returncode == 0, tail(process)
    assert process.stdout.split() == ["defined"]


@pytest.mark.parametrize(("position", "value"), [(0, MATRIX.nse), (3, -1)])
def test_positions_out_of_range_with_a_large_batch(position: int, value: int) -> None:
    """Batches that both gradients are computed for in one pass; the right pattern was seen before."""
    x, ct = np.ones((100, 6), np.float32), np.ones((100, 5), np.float32)

    def gradients(pattern: SparsityPattern) -> Any:
        return jax.block_until_ready(jax.vjp(lambda d, v: spmm(d, pattern, v), DATA, x)[1](ct))

    gradients(MATRIX)
    message = f"sparsejax_spmm_backward: perm_t has value {value} at element {position}; expected values in"
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
        gradients(spoiled(MATRIX, "perm_t", position, value))
    assert message in str(caught.value)


def fail_of(target: str, *operands: Any, result: tuple[tuple[int, ...], str], **attributes: Any) -> str:
    """The error of a target that is called directly, without the checks in Python."""
    call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(result[0], jnp.dtype(result[1])))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)) as caught:
        jax.block_until_ready(call(*operands, **attributes))
    return str(caught.value)


def test_targets_name_the_dtypes_that_they_refuse() -> None:
    pattern = (MATRIX.indptr, MATRIX.indices)
    message = fail_of("sparsejax_spmm_v2", DATA.astype(np.int8), X, *pattern, result=((7, 5), "float32"))
    assert "sparsejax_spmm: data has dtype int8; expected dtype float32, that of the other operands." in message
    message = fail_of("sparsejax_sddmm_v2", X.astype(np.complex64), Y, *pattern, result=((MATRIX.nse,), "float32"))
    assert "sparsejax_sddmm: x has dtype complex64; expected dtype float32, float64 or bfloat16." in message
    message = fail_of("sparsejax_channel_sum_v2", jnp.asarray(X, jnp.float16), result=((6,), "float32"))
    assert "sparsejax_channel_sum: x has dtype float16; expected dtype float32, float64 or bfloat16." in message
    geometry = np.array([7, 7, 1, 1, 0, 6, 6, 1, 1, 0], np.int64)
    message = fail_of(
        "sparsejax_sum_pool_v2", np.ones((2, 7, 6, 1), bool), result=((2, 7, 6, 1), "bool"), geometry=geometry
    )
    assert "sparsejax_sum_pool: x has dtype bool; expected dtype float32, float64 or bfloat16." in message


def test_a_failed_call_leaves_the_next_one_right() -> None:
    want = spmm(DATA, MATRIX, X)
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError)):
        jax.block_until_ready(spmm(DATA, spoiled(MATRIX, "indices", 0, -1), X))
    assert np.array_equal(spmm(DATA, MATRIX, X), want)
