"""The yardstick itself: oracle, work, and how errors are judged."""

import itertools
import math

import numpy as np
import pytest

from sparsejax_bench.cases import _oracle
from sparsejax_bench.cases._case import Case
from sparsejax_bench.cases._shapes import Shape

SHAPES = [
    Shape("t", "linear", "linear", 3, 5, 4),
    Shape("t", "plain", "conv", 2, 3, 2, 5, 4, 3, 3, 1, 1, 1),
    Shape("t", "strided", "conv", 2, 2, 3, 7, 8, 3, 2, 2, 1, 0),
    Shape("t", "stride 3", "conv", 1, 2, 2, 8, 7, 5, 5, 3, 2, 2),
    Shape("t", "padding beyond", "conv", 1, 1, 2, 2, 2, 2, 2, 1, 3, 3),
    Shape("t", "1-D", "conv1d", 2, 3, 2, 1, 9, 1, 4, 2, 0, 1),
]


def by_definition(shape, kernel, x):
    """Output and multiplications by the definition: one loop per index, padding as zeros that are not counted."""
    y, count = np.zeros(shape.y), 0
    window = [range(w) for _, w, _ in shape.axes]
    for place in itertools.product(*map(range, shape.out_spatial)):
        for tap in itertools.product(*window):
            at = [o * shape.stride - pad + t for o, t, (_, _, pad) in zip(place, tap, shape.axes, strict=True)]
            if all(0 <= i < size for i, (size, _, _) in zip(at, shape.axes, strict=True)):
                y[(slice(None), *place)] += x[(slice(None), *at)].astype(float) @ kernel[tap].astype(float)
                count += 2 * int((kernel[tap] != 0).sum()) * shape.batch
    return y, count


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_oracle_follows_the_definition_and_its_adjoints(shape):
    case = Case(shape, 0.4)
    y, dx, dw = _oracle.products(shape, case.kernel, case.x, case.cotangent)
    expected, work = by_definition(shape, case.kernel, case.x)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert case.flops == work
    inner = float((y * case.cotangent).sum())
    assert math.isclose(inner, float((dx * case.x).sum()), rel_tol=1e-9)
    assert math.isclose(inner, float((dw * case.kernel).sum()), rel_tol=1e-9)


def test_masks_have_the_sparsity_asked_for_and_stored_weights_are_not_zero():
    case = Case(Shape("t", "t", "linear", 2, 40, 50), 0.93)
    assert case.nnz == 140 == int((case.kernel != 0).sum())
    assert Case(Shape("t", "t", "linear", 2, 2, 2), 0.99).nnz == 1


def test_the_same_seed_gives_the_same_layer():
    shape = Shape("t", "t", "linear", 2, 4, 5)
    for name in ("mask", "kernel", "x", "cotangent"):
        a, b, other = (getattr(Case(shape, 0.5, seed), name) for seed in (0, 0, 1))
        assert (a == b).all() and (a != other).any()


def test_stored_entries_are_in_the_order_of_scipy(x64):
    sparse = pytest.importorskip("scipy.sparse")
    case = Case(Shape("t", "t", "linear", 2, 7, 6), 0.5)
    np.testing.assert_array_equal(case.stored(case.kernel), sparse.csr_array(case.kernel.T).data)


def test_errors_are_seen():
    case = Case(SHAPES[1], 0.4)
    right = case.expected
    assert case.error({name: array.astype(np.float32) for name, array in right.items()}) < 1e-6
    for name in right:
        wrong = right[name].copy()
        wrong.flat[0] += 0.1
        assert case.error({name: wrong}) > 1e-2
        wrong.flat[0] = np.nan
        assert case.error({name: wrong}) == math.inf
        assert case.error({name: right[name].ravel()[:-1]}) == math.inf
