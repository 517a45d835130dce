"""Feeds malformed arrays to the FFI targets; run by test_fuzz.py in its own process, so that a crash is a failure.

Accepted calls are run twice and must give the same bits, also where an index array has repeated or missing values.

Usage: ``python fuzz_worker.py SEED FIRST LAST``. Prints the number of each case before it runs, so the last line of a
crashed process names its reproducer: the same command with that number and the next. ``python fuzz_worker.py absurd``
runs the cases of ``absurd_cases`` instead.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.kernels._targets import TARGETS

FLOATS = ("float32", "float64", "bfloat16")
DTYPES = (*FLOATS, "float16", "int32", "int8", "uint32", "int64", "bool", "complex64")
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64, 100)
GEOMETRY = (0, 1, 2, 3, 5, 7, 17, 100, 4096, 2**16, 2**20, 2**30, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
CONTENTS = (0, 1, -1, 2, 5, 100, 2**16, 2**30, 2**31 - 1, -(2**31))
MEMORY = 24 << 30


class Case(NamedTuple):
    """One call of a target: operands, results, the geometry attribute (None where it has none) and other attributes."""

    target: str
    operands: list[np.ndarray]
    results: list[tuple[tuple[int, ...], str]]
    geometry: list[int] | None
    attributes: tuple[tuple[str, Any], ...] = ()


def pick(rng: np.random.Generator, values: Any) -> Any:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def orientation(
    rng: np.random.Generator, rows: int, columns: int, nse: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """``indptr, indices`` that the kernels accept; entries may be unsorted or repeated, and rows may be in groups."""
    if nse is None and rows % 4 == 0 and rng.integers(3) == 0:
        size, length = pick(rng, (2, 4)), int(rng.integers(0, 5)) if columns else 0
        groups = rng.integers(0, max(columns, 1), (rows // size, 1, length))
        indices = groups.repeat(size, 1).reshape(-1)
        return np.arange(rows + 1, dtype=np.int32) * length, indices.astype(np.int32)
    if nse is None:
        nse = int(rng.integers(0, 3 * (rows + columns) + 1))
    used = int(rng.integers(0, nse + 1)) if rows and columns else 0
    cuts = np.sort(rng.integers(0, used + 1, max(rows - 1, 0)))
    indptr = np.concatenate([[0], cuts, [used]]) if rows else np.zeros(1)
    return indptr.astype(np.int32), rng.integers(0, max(columns, 1), nse).astype(np.int32)


def floats(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Normal numbers of a dtype."""
    return np.asarray(rng.standard_normal(shape), jnp.dtype(dtype))


def layouts(rng: np.random.Generator) -> tuple[tuple[str, Any], ...]:
    """The attribute of the layouts of input and output, with any values."""
    return (("layouts", rng.integers(0, 2, 2)),)


def matmul_case(rng: np.random.Generator, target: str) -> Case:
    """A call that the checks of the matrix products accept."""
    n, k, m = (pick(rng, SIZES) for _ in range(3))
    dtype = pick(rng, FLOATS)
    transposed = "spmm_t" in target or "backward" in target
    rows, columns = (k, m) if transposed else (m, k)
    indptr, indices = orientation(rng, rows, columns)
    nse = indices.size
    if "sddmm" in target:
        operands = [floats(rng, (n, k), dtype), floats(rng, (n, m), dtype), indptr, indices]
        return Case(target, operands, [((nse,), dtype)], None, layouts(rng))
    operands = [floats(rng, (nse,), dtype), floats(rng, (n, columns), dtype), indptr, indices]
    if transposed:
        operands.append(rng.permutation(nse).astype(np.int32))
    if "backward" in target:
        forward = orientation(rng, m, k, nse)
        operands = [operands[1], operands[0], floats(rng, (n, k), dtype), *forward, *operands[2:]]
        return Case(target, operands, [((nse,), dtype), ((n, k), dtype)], None, layouts(rng))
    return Case(target, operands, [((n, rows), dtype)], None, layouts(rng))


def conv_axis(rng: np.random.Generator) -> list[int]:
    """Input, output, window, stride, low padding, input and kernel dilation of one axis, not matched to each other."""
    small = (1, 1, 2, 3, 5)
    low = int(rng.integers(-4, 5))
    sizes = [pick(rng, (0, 1, 2, 5, 9, 14)), pick(rng, (0, 1, 2, 5, 9, 14))]
    return [*sizes, pick(rng, small), pick(rng, small), low, pick(rng, small), pick(rng, small)]


def conv_case(rng: np.random.Generator, target: str) -> Case:
    """A call that the checks of the convolutions accept, with a geometry that no user would write."""
    batch, groups, dtype = pick(rng, SIZES), pick(rng, (1, 1, 1, 2, 3)), pick(rng, FLOATS)
    inputs, outputs = groups * pick(rng, (1, 2, 5)), groups * pick(rng, (1, 2, 5))
    y, x = conv_axis(rng), conv_axis(rng)
    columns = y[2] * x[2] * inputs // groups
    source = floats(rng, (batch, y[0], x[0], inputs), dtype)
    cotangent = floats(rng, (batch, y[1], x[1], outputs), dtype)
    transposed = "input_grad" in target or "backward" in target
    rows_t = (columns, outputs) if transposed else (outputs, columns)
    indptr, indices = orientation(rng, *rows_t)
    nse = indices.size
    data = floats(rng, (nse,), dtype)
    geometry = [groups, inputs, outputs, *y, *x]
    if "weight_grad" in target:
        return Case(target, [source, cotangent, indptr, indices], [((nse,), dtype)], geometry, layouts(rng))
    perm = rng.permutation(nse).astype(np.int32)
    if "backward" in target:
        results = [((nse,), dtype), (source.shape, dtype)]
        forward = orientation(rng, outputs, columns, nse)
        return Case(target, [cotangent, data, source, *forward, indptr, indices, perm], results, geometry, layouts(rng))
    if "input_grad" in target:
        return Case(target, [data, cotangent, indptr, indices, perm], [(source.shape, dtype)], geometry, layouts(rng))
    return Case(target, [data, source, indptr, indices], [(cotangent.shape, dtype)], geometry, layouts(rng))


def channel_case(rng: np.random.Generator, target: str) -> Case:
    """A call that the checks of the channel sums accept."""
    shape = tuple(pick(rng, (0, 1, 2, 5, 16, 33)) for _ in range(int(rng.integers(2, 5))))
    dtype = pick(rng, FLOATS)
    out = "float64" if dtype == "float64" else "float32"
    layout = (("layouts", np.full(2, rng.integers(2))),)
    arrays = [floats(rng, shape, dtype)] * (2 if "dot" in target else 1)
    return Case(target, arrays, [(shape[-1:], out)], None, layout)


def pool_case(rng: np.random.Generator, target: str) -> Case:
    """A call that the checks of the pools accept; tap numbers are arbitrary."""
    batch, channels, dtype = pick(rng, SIZES), pick(rng, (1, 2, 5)), pick(rng, FLOATS)
    y = [
        pick(rng, (0, 1, 5, 9)),
        pick(rng, (0, 1, 5, 9)),
        *(int(v) for v in rng.integers(1, 5, 2)),
        pick(rng, (0, 1, 7)),
    ]
    x = [
        pick(rng, (0, 1, 5, 9)),
        pick(rng, (0, 1, 5, 9)),
        *(int(v) for v in rng.integers(1, 5, 2)),
        pick(rng, (0, 1, 7)),
    ]
    inside, outside = (batch, y[0], x[0], channels), (batch, y[1], x[1], channels)
    taps = rng.integers(-5, 30, outside).astype(np.int32)
    if "max_pool" in target:
        return Case(target, [floats(rng, inside, dtype)], [(outside, dtype), (outside, "int32")], [*y, *x])
    source, result = (outside, inside) if "unpool" in target or "put" in target else (inside, outside)
    return Case(target, [floats(rng, source, dtype)] + [taps] * ("max" in target), [(result, dtype)], [*y, *x])


def norm_case(rng: np.random.Generator, target: str) -> Case:
    """A call that the checks of the batch norms accept."""
    shape = tuple(pick(rng, (0, 1, 2, 5, 16, 33)) for _ in range(int(rng.integers(2, 5))))
    dtype, more = pick(rng, FLOATS), bool(rng.integers(2))
    vector = (shape[-1:], "float64" if dtype == "float64" else "float32")
    image, activation = (shape, dtype), "relu" if more else pick(rng, ("none", "relu"))
    operands, results = [image, vector, vector], [image, vector, vector]
    if "grad" in target:
        operands += [image, vector, vector, vector, vector]
        results += [image] * more
    arrays = [floats(rng, *operand) for operand in operands + [image] * more]
    attributes = ("activation", activation), ("epsilon", 1e-5), ("layouts", np.full(2, rng.integers(2)))
    return Case(target, arrays, results, None, attributes)


def attention_case(rng: np.random.Generator, target: str) -> Case:
    """A call that the checks of attention accept; the numbers per query of the gradient are arbitrary."""
    batch, queries, keys = pick(rng, (0, 1, 2, 3)), pick(rng, (*SIZES, 130)), pick(rng, (*SIZES, 270))
    kv_heads, features, dtype = pick(rng, (1, 1, 2)), pick(rng, (0, 1, 5, 8, 17, 64)), pick(rng, FLOATS)
    heads, sums = kv_heads * pick(rng, (1, 2, 3)), "float64" if dtype == "float64" else "float32"
    q, k = ((batch, queries, heads, features), dtype), ((batch, keys, kv_heads, features), dtype)
    number = ((batch, heads, queries), sums)
    operands, results = [q, k, k], [q, number, number]
    if "grad" in target:
        operands, results = [q, number, q, k, k, q, number, number], [q, k, k]
    arrays, axes = [floats(rng, *operand) for operand in operands], {}
    for name, of in (("bias", sums), ("mask", "bool")):
        axes[name] = np.array(rng.integers(0, 2, 4 * int(rng.integers(2))), np.int64)
        if axes[name].size:
            sizes = [n if has else 1 for n, has in zip((batch, heads, queries, keys), axes[name], strict=True)]
            arrays.append((rng.random(int(np.prod(sizes))) < 0.5).astype(of))
    attributes = {"bias": axes["bias"], "causal": bool(rng.integers(2)), "mask": axes["mask"], "scale": 0.3}
    return Case(target, arrays, results, None, tuple(attributes.items()))


def valid_case(rng: np.random.Generator, target: str) -> Case:
    """A call that every check accepts."""
    if "conv" in target:
        return conv_case(rng, target)
    if "pool" in target or "max" in target:
        return pool_case(rng, target)
    if "norm" in target:
        return norm_case(rng, target)
    if "attention" in target:
        return attention_case(rng, target)
    return channel_case(rng, target) if "channel" in target else matmul_case(rng, target)


def spoil_array(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """The array with another size, rank, dtype, or wild numbers."""
    kind = int(rng.integers(6))
    if kind == 0 and array.ndim:
        axis = int(rng.integers(array.ndim))
        shape = [pick(rng, SIZES) if i == axis else n for i, n in enumerate(array.shape)]
        return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
    if kind == 1:
        shape = tuple(pick(rng, (0, 1, 2, 5, 17)) for _ in range(int(rng.integers(0, 6))))
        return np.zeros(shape, array.dtype)
    if kind == 2:
        return array.astype(jnp.dtype(pick(rng, DTYPES)))
    if array.dtype != np.int32 or array.size == 0:
        return array[::-1].copy() if array.ndim else array
    if kind == 5:
        return rng.choice(array.reshape(-1), array.shape).astype(np.int32)  # values of its own, some of them repeated
    spoiled = array.copy()
    at = rng.integers(0, array.size, int(rng.integers(1, 4)))
    spoiled.reshape(-1)[at] = [pick(rng, CONTENTS) for _ in at]
    return spoiled


def spoil(rng: np.random.Generator, case: Case) -> Case:
    """The case with one part made wrong."""
    part = int(rng.integers(4))
    if part == 0 and case.geometry is not None:
        geometry = list(case.geometry)
        value = pick(rng, GEOMETRY) * pick(rng, (1, 1, -1))
        geometry[int(rng.integers(len(geometry)))] = value
        return case._replace(geometry=geometry if rng.integers(10) else geometry[: int(rng.integers(17))])
    if part == 0 and case.attributes and case.attributes[0][0] == "layouts":
        wrong = rng.integers(-1, 3, int(rng.integers(4)))
        return case._replace(attributes=(("layouts", wrong),) if rng.integers(4) else ())
    if part == 0 and "attention" in case.target:
        axes = rng.integers(-1, 3, int(rng.integers(6)))
        return case._replace(attributes=tuple({**dict(case.attributes), pick(rng, ("bias", "mask")): axes}.items()))
    if part == 0 and case.attributes:
        wild = {
            "activation": pick(rng, ("none", "relu", "tanh", "")),
            "epsilon": pick(rng, (0.0, -1.0, np.nan, np.inf)),
            "layouts": rng.integers(-1, 3, int(rng.integers(4))),
        }
        return case._replace(attributes=tuple(wild.items())[int(rng.integers(3)) :])
    if part == 1:
        results = list(case.results)
        at = int(rng.integers(len(results)))
        blank = spoil_array(rng, np.zeros(results[at][0], jnp.dtype(results[at][1])))
        results[at] = (blank.shape, blank.dtype.name)
        return case._replace(results=results)
    operands = list(case.operands)
    if ("norm" in case.target or "attention" in case.target) and rng.integers(
        4
    ) == 0:  # the number of operands is not fixed
        return case._replace(operands=operands + operands[:1] if rng.integers(2) else operands[:-1])
    at = int(rng.integers(len(operands)))
    operands[at] = spoil_array(rng, operands[at])
    return case._replace(operands=operands)


def wild_geometry(rng: np.random.Generator, case: Case) -> Case:
    """Extreme strides, dilations, paddings and windows: everything the buffers' shapes do not fix."""
    if case.geometry is None:
        return case
    geometry = list(case.geometry)
    axes, offset = (7, 3) if "conv" in case.target else (5, 0)
    for start in (offset, offset + axes):
        for i in range(2, axes):
            if rng.integers(3) == 0:
                geometry[start + i] = pick(rng, GEOMETRY) * pick(rng, (1, 1, 1, -1))
    return case._replace(geometry=geometry)


def make_case(seed: int, number: int) -> Case:
    """The case of a number: a fifth valid, the rest with one to three faults or a wild geometry."""
    rng = np.random.default_rng([seed, number])
    case = valid_case(rng, TARGETS[number % len(TARGETS)])
    kind = int(rng.integers(5))
    if kind == 0:
        return case
    if kind == 1:
        return wild_geometry(rng, case)
    for _ in range(int(rng.integers(1, 4))):
        case = spoil(rng, case)
    return case


def call(case: Case) -> list[bytes]:
    """Run the case and return the bytes of its results."""
    results = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for shape, dtype in case.results]
    attributes = dict(case.attributes)
    if case.geometry is not None:
        attributes["geometry"] = np.array(case.geometry, np.int64)
    outs = jax.ffi.ffi_call(case.target, results)(*map(jnp.asarray, case.operands), **attributes)
    return [np.asarray(out).tobytes() for out in outs]


def check(case: Case, number: int) -> None:
    """Run the case twice: with SPARSEJAX_POISON, results that are not written have other bits in every run."""
    if call(case) != call(case):
        raise AssertionError(f"case {number}: {case.target} gives other bits in a second run")


def absurd_cases() -> list[Case]:
    """Sizes that cost no memory because another one is zero, and windows and phases that no buffer bounds."""
    none, zeros = np.zeros(0, np.int32), np.zeros(2, np.int32)
    empty, pixels = np.zeros(0, np.float32), np.ones((2, 1, 4, 1), np.float32)
    plain = [1, 1, 1, 1, 0, 1, 1]
    cases = []
    for out, window, dilation in ((4, 2**24, 1), (4, 2**29, 1), (4, 2**31 - 1, 1), (20000, 20000, 20000)):
        geometry = [1, 1, 1, *plain, 4, out, window, 1, 0, dilation, 1]
        cases.append(Case("sparsejax_conv_v2", [empty, pixels, zeros, none], [((2, 1, out, 1), "float32")], geometry))
    for height, features, dilation in ((2**30, 1, 1), (2**28, 1, 2**28), (2**30, 2**30, 1)):
        source, cotangent = np.zeros((0, 1, 1, features), np.float32), np.zeros((0, 1, height, 1), np.float32)
        geometry = [1, features, 1, *plain, 1, height, 1, 1, 0, dilation, 1]
        operands = [source, cotangent, np.array([0, 1], np.int32), np.zeros(1, np.int32)]
        cases.append(Case("sparsejax_conv_weight_grad_v2", operands, [((1,), "float32")], geometry))
    # Packed elements: 2**30 channels x 128 x 64 planes x 128 * 16 x 64 lines x 16 lanes, which is 2**64.
    geometry = [1, 1, 2**30, 1, 1, 64, 1, 0, 64, 64 * 64 + 1, 16, 0, 128, 1, 0, 128, 64 * 128 + 1]
    operands = [empty, np.zeros((16, 1, 0, 2**30), np.float32), np.zeros(64 * 128 + 1, np.int32), none, none]
    cases.append(Case("sparsejax_conv_input_grad_v2", operands, [((16, 1, 16, 1), "float32")], geometry))
    return cases


def limit_memory() -> None:
    """Make allocations fail before the machine swaps; AddressSanitizer, if it is here, reserves more than any limit."""
    if not hasattr(ctypes.CDLL(None), "__asan_init"):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def absurd() -> None:
    """Run the absurd cases and print what became of each."""
    limit_memory()
    for case in absurd_cases():
        try:
            call(case)
            print("accepted", flush=True)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            print(str(error).splitlines()[0], flush=True)


def main(seed: int, first: int, last: int) -> None:
    """Run the cases from ``first`` up to ``last``; prints how many were accepted and the peak memory in MiB."""
    limit_memory()
    accepted = 0
    with jax.enable_x64(True):
        for number in range(first, last):
            print("case", seed, number, flush=True)
            try:
                check(make_case(seed, number), number)
                accepted += 1
            except (jax.errors.JaxRuntimeError, ValueError) as error:
                print(str(error).splitlines()[0], flush=True)
            if number % 200 == 199:
                jax.clear_caches()
    # Of this address space. What getrusage calls ru_maxrss begins at the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) >> 10
    print("accepted", accepted, "peak", peak)


if __name__ == "__main__":
    if sys.argv[1:] == ["absurd"]:
        absurd()
    else:
        main(*(int(v) for v in sys.argv[1:]))
