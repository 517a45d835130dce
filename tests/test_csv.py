"""CSV cells that a spreadsheet would run as formulas."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from sparsejax._csv import csv_cell, csv_text

FORMULAS = ["=HYPERLINK(1)", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "- ", "\uff1d1"]
PLAIN = ["-0.5", "+1e-3", "-inf", "", "a=b", "x", -0.5, np.float64(-0.5), -3, float("-inf"), True]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_start_with_an_apostrophe(text):
    assert csv_cell(text) == "'" + text
    (header, row) = csv.reader(io.StringIO(csv_text([text], [[text]]), newline=""))
    assert header == row == ["'" + text]


@pytest.mark.parametrize("value", PLAIN)
def test_numbers_and_other_text_stay(value):
    assert csv_cell(value) is value


def test_nan_is_an_empty_cell():
    assert csv_text(["a"], [[float("nan")], [np.float64("nan")], [None]]) == 'a\n""\n""\n""\n'
