"""Verdicts and sentences of the notebooks follow from the numbers that the notebooks store."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jupytext
import pytest
from scipy.stats import t

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
import transfer_digits  # noqa: E402
import verdicts  # noqa: E402

NOTEBOOKS = ("acdc", "bias", "flea", "transfer")
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@pytest.fixture(scope="module", params=NOTEBOOKS)
def notebook(request):
    return jupytext.read(ROOT / "notebooks" / f"{request.param}.ipynb")


def outputs(notebook, kind):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if kind in output.get("data", {}):
                yield output["data"][kind]


def stored(notebook):
    return {key: value for each in outputs(notebook, "application/json") for key, value in each.items()}


def numbers_of(text):
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def test_the_verdict_table_and_every_sentence_follow_from_the_stored_numbers(notebook):
    found = verdicts.read(stored(notebook))
    rows = verdicts.table(found)
    shown = list(outputs(notebook, "text/markdown"))
    assert verdicts.verdict_table(rows) in shown and verdicts.sentences(rows) in shown
    assert min(len(each.values) for each in found) >= 2 and max(len(each.values) for each in found) >= 5


def test_the_rule_is_the_one_that_is_stated(notebook):
    for each in verdicts.read(stored(notebook)):
        n = len(each.values)
        mean = sum(each.values) / n
        error = (sum((value - mean) ** 2 for value in each.values) / (n - 1) / n) ** 0.5
        low, high = mean - t.ppf(0.975, n - 1) * error, mean + t.ppf(0.975, n - 1) * error
        expected = "shows" if low > each.margin else "does not show" if high < each.margin else "unclear"
        assert verdicts.verdict(each.values, each.margin) == expected, each


def test_numbers_of_the_fixed_text_are_settings(notebook):
    settings = set(stored(notebook)["settings"])
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "", cell.source)
            unknown = [value for value in numbers_of(text) if abs(value) not in settings]
            assert not unknown, (unknown, cell.source)


def test_other_sentences_with_numbers_are_made_from_stored_ones(notebook):
    known = stored(notebook)
    rows = verdicts.table(verdicts.read(known))
    made = {verdicts.verdict_table(rows), verdicts.sentences(rows)}
    if "readings" in known:
        reading = dict(known["readings"])
        made.add(transfer_digits.reading_sentence(reading, reading.pop("sparsity")))
    for text in outputs(notebook, "text/markdown"):
        assert text in made or not numbers_of(text.replace("resnet50", "")), text


def test_the_rule_at_its_edges():
    assert verdicts.verdict([0.5]) == "unclear" and verdicts.verdict([]) == "unclear"
    assert verdicts.verdict([1.0, 1.0, 1.0], margin=0.99) == "shows"
    assert verdicts.verdict([1.0, 1.0, 1.0], margin=1.01) == "does not show"
    rows = verdicts.table([
        verdicts.evidence("a", "80 %", [1, 1.1]), verdicts.evidence("a", "90 %", [1, -1]),
        verdicts.evidence("b", "90 %", [1, 1.1]),
    ])  # fmt: skip
    assert verdicts.overall(rows) == {"a": "unclear", "b": "shows"}
    assert "| b | exempt | shows | **shows** |" in verdicts.verdict_table(rows)
    assert "1 shows, 0 does not show, 1 unclear" in verdicts.sentences(rows)
