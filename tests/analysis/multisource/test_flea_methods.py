"""Baselines with other losses, boosted trees, weights, and learners that wrap another one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from xgboost import XGBClassifier

from sparsejax.analysis import multisource as ms
from sparsejax.analysis.multisource.learners import _robust
from sparsejax.analysis.multisource.learners._tilted import tilted_loss


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    a = (rng.random(240) < 0.4).astype(int)
    X = np.column_stack([rng.normal(size=(240, 2)) + a[:, None], a])
    y = (X[:, 0] - X[:, 1] + a + rng.normal(size=240) > 0.5).astype(int)
    return ms.TrainingSet(X, y, a, ms.assign_sources(240, 4), 2)


def unfairness(model, rows, **options):
    decisions = model.predict(rows.X, **options)
    return abs(decisions[rows.a == 1].mean() - decisions[rows.a == 0].mean())


@pytest.mark.parametrize("legacy", [False, True])
def test_tilted_loss_is_the_formula_and_its_gradient_the_derivative(rows, x64, legacy):
    def formula(logits, tau=2.0, t=-2.0):
        scores = jax.nn.sigmoid(logits) if legacy else logits
        bce = jnp.logaddexp(0.0, scores) - rows.y * scores
        total = 0.0
        for s in range(4):
            inner = 0.0
            for g in (0, 1):
                cell = (rows.source == s) & (rows.a == g)
                inner += cell.sum() / 60 * jnp.exp(tau * bce[cell].mean())
            total += 60 / 240 * jnp.exp(t * jnp.log(inner) / tau)
        return jnp.log(total) / t

    logits = np.random.default_rng(1).normal(size=240)
    value, gradient = tilted_loss(rows.y, rows.a, rows.source, 2.0, -2.0, legacy)(logits)
    expected, slope = jax.value_and_grad(formula)(jnp.asarray(logits))
    assert value == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-12)


def test_term_gives_less_weight_to_a_manipulated_source(rows):
    y = rows.y.copy()
    y[rows.source == 3] = 1 - y[rows.source == 3]
    clean = rows.source != 3
    term = ms.HierarchicalTERM(t=-20).fit(rows.X, y, sensitive_features=rows.a, source=rows.source)
    plain = ms.PlainLearner().fit(rows.X, y)
    assert term.score(rows.X[clean], y[clean]) > plain.score(rows.X[clean], y[clean])
    small = ms.HierarchicalTERM(tau=1e-6, t=-1e-6, tol=1e-7).fit(
        rows.X, y, sensitive_features=rows.a, source=rows.source
    )
    np.testing.assert_allclose(small.coef_, plain.coef_, atol=0.01)  # without tilt it is the mean
    with pytest.raises(ValueError, match="source has value None"):
        ms.HierarchicalTERM().fit(rows.X, y, sensitive_features=rows.a)


def test_penalty_shrinks_weights(rows):
    fits = [
        ms.HierarchicalTERM(l2=l2).fit(rows.X, rows.y, sensitive_features=rows.a, source=rows.source) for l2 in (0, 1)
    ]
    assert np.abs(fits[1].coef_).max() < 0.5 * np.abs(fits[0].coef_).max()


@pytest.fixture(scope="module")
def robust(rows):
    return ms.RobustLearner(0.1).fit(rows.X, rows.y, sensitive_features=rows.a)


def test_robust_constraints_hold_on_the_training_set(rows, robust):
    p = robust.predict_proba(rows.X)[:, 1]
    for group in (0, 1):  # the uniform weighting is in every ball
        assert abs(rows.y.mean() - p[rows.a == group].mean()) <= robust.slack_ + 1e-8
    assert unfairness(robust, rows) < unfairness(ms.PlainLearner().fit(rows.X, rows.y), rows)
    assert 0 < robust.predict(rows.X).mean() < 1
    again = ms.RobustLearner(0.1).fit(rows.X, rows.y, sensitive_features=rows.a)
    assert (again.coef_ == robust.coef_).all()


@pytest.mark.parametrize(("change", "text"), [({"tv": 1.0}, "tv has value 1.0"), ({"slack": 0}, "slack has value 0")])
def test_robust_refuses_what_has_no_meaning(rows, change, text):
    with pytest.raises(ValueError, match=text):
        ms.RobustLearner(**change).fit(rows.X, rows.y, sensitive_features=rows.a)


def test_drawn_weightings_lie_on_the_ball_and_legacy_ones_ignore_it(rows, x64):
    member = jnp.asarray([rows.a == 0, rows.a == 1])
    uniform = member / member.sum(1, keepdims=True)

    def distance(tv, legacy):
        drawn = _robust._draws(jax.random.key(0), member, uniform, tv, legacy)
        assert (drawn >= 0).all() and (jnp.where(member, 0, drawn) == 0).all()
        return np.asarray(jnp.abs(drawn / drawn.sum(-1, keepdims=True) - uniform).sum(-1))

    assert (distance(0.05, False) <= 0.1 + 1e-12).all() and distance(0.05, False).max() > 0.05
    assert (distance(0.05, True) == distance(0.4, True)).all() and distance(0.05, True).min() > 0.1


def test_projection_onto_the_ball(x64):
    v = np.random.default_rng(0).normal(size=9)
    for radius in (0.0, 0.5, 3.0, 100.0):
        nearest = np.asarray(_robust._onto_ball(jnp.asarray(v), radius))
        assert np.abs(nearest).sum() == pytest.approx(min(radius, np.abs(v).sum()), abs=1e-12)
        cut = np.abs(v) - np.abs(nearest)  # what is left was moved by the same amount, what is gone by less
        assert (cut[nearest != 0] >= cut.max() - 1e-12).all()


def test_boosted_trees_choose_what_grid_search_chooses(rows):
    grid = {"n_estimators": [3, 6, 12], "max_depth": [1, 2]}
    theirs = GridSearchCV(XGBClassifier(n_jobs=1), grid, scoring="accuracy", cv=3).fit(rows.X, rows.y)
    ours = ms.BoostedTrees((3, 6, 12), (1, 2), cv=3).fit(rows.X, rows.y)
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(ours.cv_scores_.ravel(), theirs.cv_results_["mean_test_score"])
    np.testing.assert_allclose(ours.predict_proba(rows.X), theirs.predict_proba(rows.X), atol=1e-6)
    with pytest.raises(ValueError, match="y has 1 rows of one class; expected at least 3"):
        ms.BoostedTrees(cv=3).fit(rows.X, np.arange(240) == 0)


def test_weights_make_label_and_attribute_independent(rows):
    w = ms.reweigh(rows.y, sensitive_features=rows.a)
    rates = [np.average(rows.y[rows.a == g], weights=w[rows.a == g]) for g in (0, 1)]
    assert rates == pytest.approx([rows.y.mean()] * 2) and w.sum() == pytest.approx(240)
    plain, weighted = (LogisticRegression().fit(rows.X, rows.y, sample_weight=s) for s in (None, w))
    assert unfairness(weighted, rows) < unfairness(plain, rows)


def test_each_source_is_resampled_on_its_own(rows):
    class Recorder(LogisticRegression):
        def fit(self, X, y, *, sensitive_features, source):
            Recorder.seen = y, sensitive_features, source
            return super().fit(X, y)

    ms.ResampledLearner(Recorder(), 0).fit(rows.X, rows.y, sensitive_features=rows.a, source=rows.source)
    y, a, source = Recorder.seen
    for s in range(4):
        old = rows.rows(rows.source == s)
        for g in (0, 1):
            for label in (0, 1):
                expected = (old.a == g).sum() * (old.y == label).sum() // 60
                assert ((source == s) & (a == g) & (y == label)).sum() == expected


def test_thresholds_around_a_method_of_its_own(rows):
    model = ms.PostprocessedLearner(ms.HierarchicalTERM())
    model.fit(rows.X, rows.y, sensitive_features=rows.a, source=rows.source)
    assert unfairness(model, rows, sensitive_features=rows.a) < unfairness(model.estimator_, rows)
    with pytest.raises(ValueError, match="sensitive_features has value None"):
        model.predict(rows.X)


def test_deciding_source_has_the_median_score(rows):
    model = ms.Ensemble(ms.PlainLearner())
    odd = rows.source < 3
    model.fit(rows.X[odd], rows.y[odd], sensitive_features=rows.a[odd], source=rows.source[odd])
    scores = np.array([m.predict_proba(rows.X)[:, 1] for m in model.estimators_])
    picked = scores[model.deciding_source(rows.X), np.arange(240)]
    np.testing.assert_allclose(picked - 0.5, model.decision_function(rows.X))


def test_names_of_the_study():
    assert ms.learners_of("dro", "linear") == ("reg",) and ms.learners_of("dro", "xgboost") == ()
    for classifier in ms.CLASSIFIERS:
        for method in ms.METHODS:
            for learner in ms.learners_of(method, classifier):
                assert hasattr(ms.make_method(method, learner, classifier, 0, 0.4, False), "fit")


def test_single_decisions_of_the_published_robust_learner_are_named(rows, robust):
    assert _robust._decisions(True) == {"draws", "hinge", "simultaneous"} and _robust._decisions("hinge") == {"hinge"}
    hinge = ms.RobustLearner(0.1, legacy="hinge").fit(rows.X, rows.y, sensitive_features=rows.a)
    assert not np.array_equal(hinge.coef_, robust.coef_)
    with pytest.raises(ValueError, match="legacy has value 'hing'; expected one of draws, hinge, simultaneous"):
        ms.RobustLearner(0.1, legacy=["hing"]).fit(rows.X, rows.y, sensitive_features=rows.a)


def test_clipped_scores_bound_the_thresholds(rows):
    class Large(ms.PlainLearner):
        def decision_function(self, X):
            return 1000 * super().decision_function(X)

    free = ms.PostprocessedLearner(Large()).fit(rows.X, rows.y, sensitive_features=rows.a)
    clipped = ms.PostprocessedLearner(Large(), clip=20.0).fit(rows.X, rows.y, sensitive_features=rows.a)
    assert np.abs(clipped.thresholds_).max() <= 20 < np.abs(free.thresholds_).max()
    # Thresholds that are small beside the scores leave the decisions nearly as they were.
    as_they_were = (Large().fit(rows.X, rows.y).decision_function(rows.X) >= 0).astype(int)
    assert (clipped.predict(rows.X, sensitive_features=rows.a) == as_they_were).mean() > 0.95
    assert unfairness(free, rows, sensitive_features=rows.a) < unfairness(clipped, rows, sensitive_features=rows.a)
