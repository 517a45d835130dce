"""Estimators of scikit-learn and fairlearn after the filter, and the contract of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, ExponentiatedGradient
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsejax.analysis import multisource as ms


@pytest.fixture(scope="module")
def problem():
    """Three sources, the last with flipped labels."""
    rng = np.random.default_rng(0)
    a = rng.random(240) < 0.4
    X = np.column_stack([rng.normal(size=(240, 2)) + a[:, None], a])
    y = (X[:, 0] + rng.normal(size=240) > 0.5).astype(int)
    source = np.repeat(list("abc"), 80)
    y[160:] = 1 - y[160:]
    return {"X": X, "y": y, "sensitive_features": a, "source": source}


FILTER = ms.FLEA(disparity="signed")
ESTIMATORS = {
    "scikit-learn": LogisticRegression(),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "reduction of fairlearn": ExponentiatedGradient(LogisticRegression(), DemographicParity()),
    "thresholds of fairlearn": ThresholdOptimizer(estimator=LogisticRegression(), predict_method="predict_proba"),
    "ours": ms.RegularisedLearner(),
}


# fairlearn 0.15 with pandas 3: what pandas 4 will refuse.
@pytest.mark.filterwarnings("ignore:Setting a")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_estimator_follows_the_filter(problem, name):
    model = ms.FLEAClassifier(ESTIMATORS[name], FILTER).fit(**problem)
    assert model.filter_.kept_sources_.tolist() == ["a", "b"]
    options = {"sensitive_features": problem["sensitive_features"]} if name.startswith("thresholds") else {}
    predicted = np.asarray(model.predict(problem["X"], **options))
    assert (predicted == problem["y"])[:160].mean() > 0.6 > 0.5 > (predicted == problem["y"])[160:].mean()


@pytest.mark.filterwarnings("ignore:Setting a")
def test_the_mask_pools_what_any_estimator_takes(problem):
    source_filter = ms.FLEA(disparity="signed")
    X, y = source_filter.fit_resample(
        problem["X"], problem["y"], **{k: problem[k] for k in ("sensitive_features", "source")}
    )
    (a,) = source_filter.pool(problem["sensitive_features"], source=problem["source"])
    np.testing.assert_array_equal(X, problem["X"][source_filter.support_])
    plain, fair = LogisticRegression().fit(X, y), ExponentiatedGradient(LogisticRegression(), DemographicParity())
    fair.fit(X, y, sensitive_features=a)

    def gap(decisions):
        return abs(decisions[a].mean() - decisions[~a].mean())

    assert gap(np.asarray(fair.predict(X))) < gap(plain.predict(X))


def test_metadata_is_routed_into_a_search(problem):
    with sklearn.config_context(enable_metadata_routing=True):
        learner = ms.RegularisedLearner().set_fit_request(sensitive_features=True)
        search = GridSearchCV(learner, {"eta": [0.0, 0.5]}, cv=2)
        model = ms.FLEAClassifier(search, FILTER).fit(**problem)
    assert model.estimator_.best_params_["eta"] in (0.0, 0.5)


def alternating(X):
    return np.arange(X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))) % 2


class Regularised(ms.RegularisedLearner):
    """The checks pass X and y only, so the groups are those of odd and even rows."""

    def fit(self, X, y):
        return super().fit(X, y, sensitive_features=alternating(X))


class Adversarial(ms.AdversarialLearner):
    def fit(self, X, y):
        return super().fit(X, y, sensitive_features=alternating(X))


class Resampled(ms.ResampledLearner):
    def fit(self, X, y):
        return super().fit(X, y, sensitive_features=alternating(X))


class Postprocessed(ms.PostprocessedLearner):
    def fit(self, X, y):
        return super().fit(X, y, sensitive_features=alternating(X))

    def decision_function(self, X):
        return super().decision_function(X, sensitive_features=alternating(X))


class Tilted(ms.HierarchicalTERM):
    def fit(self, X, y):
        return super().fit(X, y, sensitive_features=alternating(X), source=alternating(X))


def expected_failures(estimator):
    if isinstance(estimator, Postprocessed):
        reason = "thresholds belong to groups, which depend on the position here: other rows, other groups"
        tie = (
            "a row at its group's threshold is positive, as published; the check takes a score of 0 for the first class"
        )
        return {
            "check_methods_subset_invariance": reason,
            "check_methods_sample_order_invariance": reason,
            "check_classifiers_train": tie,
            "check_classifiers_classes": tie,
        }
    return {}


@parametrize_with_checks(
    [
        ms.PlainLearner(),
        Regularised(),
        Adversarial(steps=2),
        Resampled(random_state=0),
        Postprocessed(),
        Tilted(),
    ],
    expected_failed_checks=expected_failures,
)
def test_contract_of_scikit_learn(estimator, check):
    check(estimator)
