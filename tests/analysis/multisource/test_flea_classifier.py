"""The classifier with a filter, by scikit-learn's conventions for meta-estimators."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone, is_classifier
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsejax.analysis import multisource as ms


class KeepFirst(ms.SourceFilter):
    """A filter without fits: the first two sources are kept, whatever their rows."""

    def fit(self, X, y, *, sensitive_features=None, source=None):
        data = self._inputs(X, y, sensitive_features, source)
        self._keep(data, np.array([0, 1]))
        return self


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    a = (rng.random(300) > 0.4).astype(int)
    X = np.c_[rng.normal(size=(300, 2)), a]
    return {"X": X, "y": (X[:, 0] > 0).astype(int), "sensitive_features": a, "source": np.repeat(list("abc"), 100)}


def without_x(problem):
    return {name: values for name, values in problem.items() if name != "X"}


@pytest.mark.parametrize(
    ("inner", "has", "has_not"),
    [
        (LinearSVC(), ["decision_function"], ["predict_proba", "predict_log_proba"]),
        (DecisionTreeClassifier(max_depth=1), ["predict_proba"], ["decision_function"]),
        (LogisticRegression(), ["decision_function", "predict_proba", "predict_log_proba"], []),
        (make_pipeline(StandardScaler(), LinearSVC()), ["decision_function"], ["predict_proba"]),
    ],
)
def test_methods_are_those_of_the_inner_estimator(problem, inner, has, has_not):
    model = ms.FLEAClassifier(inner, KeepFirst())
    for fitted in (model, clone(model).fit(**problem)):
        assert all(hasattr(fitted, name) for name in has)
        assert not any(hasattr(fitted, name) for name in has_not)
    for name in has:
        alone = getattr(clone(inner).fit(problem["X"][:200], problem["y"][:200]), name)(problem["X"])
        np.testing.assert_allclose(getattr(fitted, name)(problem["X"]), alone)


def test_a_scorer_works_as_with_the_inner_estimator_alone(problem):
    model = ms.FLEAClassifier(LinearSVC(), KeepFirst()).fit(**problem)
    score = get_scorer("roc_auc")
    assert score(model, problem["X"], problem["y"]) == score(model.estimator_, problem["X"], problem["y"]) > 0.99


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_not_fitted_is_said_as_scikit_learn_says_it(problem, method):
    with pytest.raises(NotFittedError):
        getattr(ms.FLEAClassifier(LogisticRegression()), method)(problem["X"])


def test_filters_say_that_they_are_not_fitted(problem):
    for call in (lambda f: f.mask(problem["source"]), lambda f: f.pool(problem["X"], source=problem["source"])):
        with pytest.raises(NotFittedError):
            call(ms.FLEA())


def test_a_pipeline_encodes_text_columns_and_the_filter_reads_them_too(problem):
    rng = np.random.default_rng(1)
    job = rng.choice(["x", "y", "z"], 300)
    y = ((problem["X"][:, 0] > 0) ^ (job == "x")).astype(int)
    frame = pd.DataFrame(problem["X"], columns=["u", "v", "a"]).assign(job=job)
    pipe = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["job"]), remainder="passthrough"), DecisionTreeClassifier()
    )
    y[200:] = 1 - y[200:]
    more = {"y": y, "sensitive_features": problem["sensitive_features"], "source": problem["source"]}
    for kind in (object, "category", "string"):
        model = ms.FLEAClassifier(pipe, ms.FLEA(disparity="signed")).fit(frame.astype({"job": kind}), **more)
        assert model.filter_.kept_sources_.tolist() == ["a", "b"]
        assert model.n_features_in_ == 4 and model.feature_names_in_.tolist() == ["u", "v", "a", "job"]
        assert model.score(frame.astype({"job": kind})[:200], y[:200]) > 0.9
    encoded = np.c_[problem["X"], pd.get_dummies(job, drop_first=True)].astype(float)
    by_hand = ms.FLEA(disparity="signed").fit(encoded, **more)
    np.testing.assert_array_equal(by_hand.d_scores_, model.filter_.d_scores_)
    names = [f"name {i}" for i in range(300)]
    for change, words in (
        ({"job": [None, *job[1:]]}, r"X\['job'\] has a missing value in row 0"),
        ({"job": names}, r"X\['job'\] has 300 distinct values; expected at most 255"),
        ({"u": [np.nan, *frame["u"][1:]]}, "X has value NaN in row 0, column 0"),
        ({"job": [1, *job[1:]]}, r"X\['job'\] has values of the types int and str"),
    ):
        with pytest.raises(ValueError, match=words):
            ms.FLEAClassifier(pipe, KeepFirst()).fit(frame.assign(**change), **more)
    with pytest.raises(ValueError, match=r"X has text in column 'job'; expected numbers. Encode categories first"):
        ms.PlainLearner().fit(frame, y)


def test_sample_weights_follow_their_rows(problem):
    weight = np.linspace(0, 1, 300)
    model = ms.FLEAClassifier(LogisticRegression(), KeepFirst()).fit(**problem, sample_weight=weight)
    alone = LogisticRegression().fit(problem["X"][:200], problem["y"][:200], weight[:200])
    np.testing.assert_allclose(model.estimator_.coef_, alone.coef_)


def test_metadata_is_routed(problem):
    weight = np.linspace(0, 1, 300)
    with sklearn.config_context(enable_metadata_routing=True):
        asked = ms.FLEAClassifier(LogisticRegression().set_fit_request(sample_weight=True), KeepFirst())
        model = asked.fit(**problem, sample_weight=weight)
        alone = LogisticRegression().fit(problem["X"][:200], problem["y"][:200], weight[:200])
        np.testing.assert_allclose(model.estimator_.coef_, alone.coef_)
        with pytest.raises(UnsetMetadataPassedError):
            ms.FLEAClassifier(LogisticRegression(), KeepFirst()).fit(**problem, sample_weight=weight)
        asked.set_fit_request(sensitive_features=True, source=True)
        search = GridSearchCV(asked, {"estimator__C": [0.1, 1.0]}, cv=2)
        search.fit(problem["X"], problem["y"], **{k: problem[k] for k in ("sensitive_features", "source")})
    assert search.best_params_["estimator__C"] in (0.1, 1.0)


def test_it_stores_its_arguments_and_has_the_tags_of_a_binary_classifier():
    inner, flea = LogisticRegression(), ms.FLEA(n_keep=3)
    model = ms.FLEAClassifier(inner, flea)
    assert is_classifier(model) and model.estimator is inner and model.source_filter is flea
    assert model.set_params(estimator__C=2.0, source_filter__n_keep=4).get_params()["source_filter__n_keep"] == 4
    copy = clone(model)
    assert copy.estimator.C == 2.0 and copy.estimator is not inner and not hasattr(copy, "estimator_")
    assert not get_tags(model).classifier_tags.multi_class


def test_a_failed_fit_leaves_the_old_one(problem):
    model = ms.FLEAClassifier(LogisticRegression(), KeepFirst()).fit(**problem)
    before = model.predict(problem["X"])
    with pytest.raises(ValueError, match="source has value None"):
        model.fit(problem["X"], problem["y"], sensitive_features=problem["sensitive_features"])
    np.testing.assert_array_equal(model.predict(problem["X"]), before)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (ms.Ensemble(LinearSVC()), "Ensemble.fit: estimator has type LinearSVC; expected .* predict_proba"),
        (ms.PostprocessedLearner(DecisionTreeClassifier()), "PostprocessedLearner.fit: estimator has type"),
        (ms.ResampledLearner(StandardScaler()), "with decision_function or predict_proba"),
    ],
)
def test_an_inner_estimator_without_the_method_is_refused_in_fit(problem, model, method):
    with pytest.raises(ValueError, match=method):
        model.fit(**problem)


class Filtered(ms.FLEAClassifier):
    """The checks pass X and y only: groups of odd and even rows, sources of every third row."""

    def fit(self, X, y, **fit_params):
        rows = X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))
        place = np.arange(rows)
        return super().fit(X, y, sensitive_features=place % 2, source=place % 3 // 2, **fit_params)


@parametrize_with_checks([Filtered(LogisticRegression(), KeepFirst())])
def test_contract_of_scikit_learn(estimator, check):
    check(estimator)
