"""The audit finds bias that is planted in predictions, and raises no alarm where none is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import planted_bias as study


def test_what_is_planted_is_what_is_said():
    planted = study.make(0)
    for column, (name, *_) in enumerate(study.ATTRIBUTES):
        dense, sparse = (logits[:, column] > 0 for logits in (planted.dense, planted.sparse))
        assert abs(int(dense.sum()) - int(sparse.sum())) <= 1  # as many positives
        moved = sparse[planted.group == 1].mean() - dense[planted.group == 1].mean()
        assert (moved > 0.01) == (name in study.PLANTED)


def test_planted_amplification_is_found_and_an_absent_one_is_not():
    counts = study.study(4, resamples=60)
    assert counts["planted"] == counts["absent"] == 8
    assert counts["found"] >= 7 and counts["false"] <= 1


def test_without_a_plant_there_is_no_alarm(monkeypatch):
    monkeypatch.setattr(study, "PLANTED", ())
    assert study.study(2, resamples=60)["false"] <= 1


@pytest.mark.slow
def test_power_and_false_alarms_of_twenty_seeds(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["planted_bias.py", "--seeds", "20"])
    study.main()
    shown = capsys.readouterr().out
    with capsys.disabled():
        print("\n" + shown)
    found, planted, false, absent = np.array([w for w in shown.split() if w.isdigit()], int)
    assert found >= 0.95 * planted and false <= 0.05 * absent
