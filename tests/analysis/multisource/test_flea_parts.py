"""Attacks, learners, baselines, metrics and the study."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from sparsejax.analysis import multisource as ms


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(0)
    a = (rng.random(200) < 0.4).astype(int)
    X = np.column_stack([rng.normal(size=(200, 2)) + a[:, None], a])
    y = (X[:, 0] - X[:, 1] + a + rng.normal(size=200) > 0.5).astype(int)
    return ms.TrainingSet(X, y, a, ms.assign_sources(200, 4), 2)


@pytest.mark.parametrize("name", ms.ADVERSARIES)
def test_attacks_leave_other_sources_alone_and_are_functions_of_the_key(clean, name):
    before = [field.copy() for field in clean[:4]]
    bad, again = (ms.manipulate(name, clean, np.array([1]), jax.random.key(3)) for _ in range(2))
    assert all((x == y).all() for x, y in zip(bad[:4], again[:4], strict=True))
    assert all((x == y).all() for x, y in zip(clean[:4], before, strict=True))
    assert (bad.X[:, 2] == bad.a).all()
    for field in ("X", "y", "a"):
        assert (getattr(bad, field)[bad.source != 1] == getattr(clean, field)[clean.source != 1]).all()


def test_what_attacks_do(clean):
    def attacked(name):
        bad = ms.manipulate(name, clean, np.array([1]), jax.random.key(0))
        return bad.rows(bad.source == 1)

    old = clean.rows(clean.source == 1)
    assert (attacked("flip#target").y == 1 - old.y).all() and (attacked("flip#protected").a == 1 - old.a).all()
    assert (attacked("copy#protected#target").a == old.y).all() and (attacked("copy#target#protected").y == old.a).all()
    assert sorted(attacked("shuffle#protected").a) == sorted(old.a)
    resampled = attacked("resample#1")
    assert (resampled.y == resampled.a).all() and len(resampled.y) == len(old.y)
    for value in (0, 1):
        anchored = attacked(f"randomanchor#{value}")
        assert (anchored.y == (anchored.a != value)).all()
    with pytest.raises(ValueError, match="manipulate: name has value 'swap'"):
        ms.manipulate("swap", clean, np.array([1]), jax.random.key(0))


@pytest.mark.parametrize("learner", ms.LEARNERS)
def test_learners_learn_and_fair_ones_are_fairer(clean, learner):
    def gap(name):
        model = ms.make_learner(name, "linear", 0).fit(clean.X, clean.y, sensitive_features=clean.a)
        options = {"sensitive_features": clean.a} if name == "pp" else {}
        np.testing.assert_allclose(model.predict_proba(clean.X, **options).sum(1), 1)
        return ms.evaluate_decisions(clean.y, model.predict(clean.X, **options), sensitive_features=clean.a)

    result = gap(learner)
    assert result["accuracy"] > 0.6
    if learner != "none":
        assert result["dp_violation"] < gap("none")["dp_violation"]


def test_metrics_are_those_of_fairlearn(clean):
    decision = (clean.X[:, 0] > 0).astype(int)
    ours = ms.evaluate_decisions(clean.y, decision, sensitive_features=clean.a, y_score=clean.X[:, 0])
    for name, theirs in (
        ("dp_violation", demographic_parity_difference),
        ("eodds_violation", equalized_odds_difference),
    ):
        assert ours[name] == pytest.approx(theirs(clean.y, decision, sensitive_features=clean.a))


def test_baselines(clean):
    kept = ms.KonstantinovFilter(1).fit(clean.X, clean.y, sensitive_features=clean.a, source=clean.source)
    assert kept.thresholds_.min() > 1 and kept.support_.all()  # small sources: the bound says nothing
    model = ms.Ensemble(ms.PlainLearner())
    model.fit(clean.X, clean.y, sensitive_features=clean.a, source=clean.source)
    assert len(model.estimators_) == 4 and model.score(clean.X, clean.y) > 0.6


def test_study_resumes(clean, tmp_path):
    data = ms.TabularDataset("toy", clean.X, clean.y, clean.a, 2, ("p", "q", "a"))
    options = {"adversaries": ["flip#target"], "learners": ["none"], "methods": ["oracle", "flea"], "seeds": 1}
    first = ms.run_study(data, tmp_path, n_sources=3, n_malicious=1, **options)
    (file,) = (path for path in tmp_path.iterdir() if path.suffix != ".lock" and not path.name.startswith("."))
    written = file.stat().st_mtime_ns
    second = ms.run_study(data, tmp_path, n_sources=3, n_malicious=1, **options)
    assert file.stat().st_mtime_ns == written and first.equals(second)
    assert set(first["method"]) == {"oracle", "flea"} and "fraction_malicious_disp" in set(first["metric"])
    with pytest.raises(ValueError, match="run_study: methods has value 'magic'"):
        ms.run_study(data, tmp_path, methods=["magic"])


@pytest.mark.parametrize(
    ("name", "shape", "positive", "protected"),
    [
        ("adult", (48842, 37), 0.2393, 0.3315),
        ("compas", (6172, 8), 0.4551, 0.1904),
        ("drugs", (1885, 12), 0.4493, 0.4997),
        ("germancredit", (1000, 15), 0.7, 0.31),
    ],
)
def test_tables_are_encoded_as_in_the_study(shared_data, name, shape, positive, protected):
    data = ms.load_dataset(name, shared_data / "flea")
    assert data.X.shape == shape == (len(data.y), len(data.columns))
    assert data.y.mean() == pytest.approx(positive, abs=1e-4)
    assert data.a.mean() == pytest.approx(protected, abs=1e-4)
    assert (data.X[:, data.protected] == data.a).all()
