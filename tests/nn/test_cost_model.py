"""The cost model of ``policy="rule"``."""

from __future__ import annotations

import dataclasses
import math

import pytest

from sparsejax.nn.cost_model import COEFFICIENTS, Work, dense_terms, predict, sparse_terms

LAYERS = {
    "linear": Work((512, 1024), 52429, (128, 512), (128, 1024), False),
    "pointwise": Work((1, 1, 64, 128), 819, (16, 28, 28, 64), (16, 14, 14, 128), True),
    "conv": Work((3, 3, 64, 128), 7373, (16, 28, 28, 64), (16, 28, 28, 128), False),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_kinds_have_coefficients_for_exactly_their_terms(kind):
    work = LAYERS[kind]
    assert work.kind == kind
    table = COEFFICIENTS[kind]
    assert table["sparse"].keys() == sparse_terms(work).keys()
    assert table["dense"].keys() == dense_terms(work).keys()
    assert all(math.isfinite(value) and value >= 0 for form in table.values() for value in form.values())


@pytest.mark.parametrize("kind", LAYERS)
def test_more_entries_cost_more_in_the_sparse_form_only(kind):
    work = LAYERS[kind]
    dense, sparse = predict(work)
    more_dense, more_sparse = predict(dataclasses.replace(work, entries=2 * work.entries))
    assert more_sparse > sparse > 0
    assert more_dense == dense > 0


@pytest.mark.parametrize("kind", LAYERS)
def test_more_positions_never_cost_less(kind):
    work = LAYERS[kind]
    times = [
        predict(dataclasses.replace(work, x=(batch, *work.x[1:]), y=(batch, *work.y[1:])))
        for batch in (0, 1, 3, 16, 17, 64, 1024)
    ]
    for forms in zip(*times, strict=True):
        assert list(forms) == sorted(forms)
        assert forms[-1] > forms[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_the_decision_flips_once_with_sparsity(kind, monkeypatch):
    names = {"dense": dense_terms(LAYERS[kind]), "sparse": sparse_terms(LAYERS[kind])}
    table = {form: dict.fromkeys(terms, 0.0) for form, terms in names.items()}
    table["dense"]["multiply_adds"], table["sparse"]["vector_multiply_adds"] = 0.02, 1.2
    monkeypatch.setitem(COEFFICIENTS, kind, table)
    work = LAYERS[kind]
    size = math.prod(work.kernel)
    choices = []
    for percent in range(0, 101, 5):
        dense, sparse = predict(dataclasses.replace(work, entries=size * (100 - percent) // 100))
        choices.append(sparse < dense)
    assert choices == sorted(choices)
    assert choices.index(True) in (14, 15, 16)  # 73 to 75 %, as batches fill vectors


def test_terms_of_a_convolution_with_several_batch_axes():
    work = Work((3, 1, 8, 4), 20, (2, 9, 5, 8), (2, 9, 5, 4), False)
    one = dataclasses.replace(work, x=(1, *work.x), y=(1, *work.y))
    two = dataclasses.replace(work, x=(4, 5, *work.x[1:]), y=(4, 5, *work.y[1:]))
    assert (work.batch, work.pixels, work.window) == (2, 45, 3)
    assert sparse_terms(one) == sparse_terms(work)
    assert (two.batch, two.pixels) == (20, 45)
    assert sparse_terms(two)["vector_multiply_adds"] == 2 * sparse_terms(work)["vector_multiply_adds"] == 2 * 20 * 45
    assert dense_terms(work)["multiply_adds"] == 96 * 90
    assert dense_terms(work)["patches"] == 90 * 3 * 12
    assert dense_terms(work)["strided_multiply_adds"] == 0
    assert dense_terms(dataclasses.replace(work, strided=True))["strided_multiply_adds"] == 96 * 90
