"""The filter: distances against independent fits, the selection rule, bad input, the published reference case."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sparsejax.analysis import multisource as ms


@pytest.fixture(scope="module")
def problem():
    """Five sources of one distribution, with the attribute as the last feature; the last two flip their labels."""
    rng = np.random.default_rng(0)
    a = rng.random(400) < 0.4
    X = np.column_stack([rng.normal(size=(400, 2)) + a[:, None], a])
    y = X[:, 0] - X[:, 1] + rng.normal(size=400) > 0
    source = np.repeat(list("abcde"), 80)
    y[320:] = ~y[320:]
    return {"X": X, "y": y, "sensitive_features": a, "source": source}


@pytest.fixture(scope="module")
def fitted(problem):
    return ms.FLEA().fit(**problem)


def test_the_manipulated_source_is_dropped_with_its_reason(fitted):
    assert "e" not in fitted.kept_sources_ and len(fitted.kept_sources_) == 3
    report = fitted.diagnosis_
    assert report.loc["e", "reason"] == "discrepancy" and not report.loc["e", "kept"]
    assert report["q"].tolist() == fitted.q_values_.tolist()
    assert fitted.support_.sum() == 240 and fitted.converged_.all() and fitted.n_iter_.max() > 1


def test_matrices_are_symmetric_in_range_and_zero_on_the_diagonal(fitted):
    for matrix in (fitted.discrepancy_, fitted.disparity_, fitted.disbalance_):
        assert (matrix == matrix.T).all() and (np.diag(matrix) == 0).all()
        assert matrix.min() >= 0 and matrix.max() <= 1
    total = fitted.discrepancy_ + fitted.disparity_ + fitted.disbalance_
    np.testing.assert_allclose(fitted.d_scores_, total)


def test_discrepancy_is_that_of_scikit_learn(problem, fitted):
    X, y, source = problem["X"], problem["y"], problem["source"]
    for i, j in itertools.combinations(range(5), 2):
        S, T = (source == fitted.sources_[k] for k in (i, j))
        both = StandardScaler().fit_transform(np.concatenate([X[S], X[T]]))
        target = np.concatenate([y[S], ~y[T]])
        model = LogisticRegression(C=np.inf, max_iter=700, tol=1e-8).fit(both, target)
        wrong = [model.predict(part) != truth for part, truth in ((both[:80], y[S]), (both[80:], y[T]))]
        assert fitted.discrepancy_[i, j] == pytest.approx(abs(wrong[0].mean() - wrong[1].mean()), abs=1e-9)


def test_disbalance_is_exact(problem, fitted):
    share = [problem["sensitive_features"][problem["source"] == s].mean() for s in "abcde"]
    np.testing.assert_allclose(fitted.disbalance_, np.abs(np.subtract.outer(share, share)), atol=1e-15)


def test_invariant_to_order_of_rows_and_scale_of_features(problem, fitted):
    order = np.random.default_rng(1).permutation(400)
    moved = {name: values[order] for name, values in problem.items()}
    moved["X"] = moved["X"] * [100, 0.01, 1] + [5, -3, 0]
    other = ms.FLEA(batch_size=3).fit(**moved)
    np.testing.assert_allclose(other.discrepancy_, fitted.discrepancy_, atol=1e-9)
    np.testing.assert_allclose(other.disparity_, fitted.disparity_, atol=0.03)
    assert other.kept_sources_.tolist() == fitted.kept_sources_.tolist()


def test_same_bits_every_time(problem, fitted):
    assert (ms.FLEA().fit(**problem).d_scores_ == fitted.d_scores_).all()


def test_equal_sources_are_at_distance_zero(problem):
    half = {name: values[:80] for name, values in problem.items()}
    twice = {name: np.concatenate([values, values]) for name, values in half.items()}
    twice["source"] = np.repeat([0, 1], 80)
    for disparity in ("absolute", "signed"):
        assert (ms.FLEA(disparity=disparity).fit(**twice).d_scores_ == 0).all()


def test_selection_rule():
    scores = np.array([[0, 1, 2, 9], [1, 0, 2, 9], [2, 2, 0, 9], [9, 9, 9, 0]], float)
    assert ms.quantiles(scores, 3).tolist() == [2, 2, 2, 9]
    assert ms.select_sources(scores, 3).tolist() == [0, 1, 2]
    tied = np.ones((5, 5)) - np.eye(5)
    assert ms.select_sources(tied, 3).tolist() == [0, 1, 2]
    assert ms.select_sources(tied, 3, "all").tolist() == [0, 1, 2, 3, 4]


def test_mask_and_pool(problem, fitted):
    source = problem["source"]
    assert (fitted.mask(source) == fitted.support_).all()
    X, y = fitted.pool(problem["X"], problem["y"], source=source)
    assert len(X) == len(y) == 240
    with pytest.raises(ValueError, match="unknown label 'z'"):
        fitted.mask(["a", "z"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"source": np.zeros(400)}, "FLEA.fit: source has one source, .* expected at least two"),
        ({"source": None}, "source has value None"),
        (
            {"source": ["z", *"ab" * 199, "b"]},
            "source has 1 source with one row, such as 'z'; expected at least two rows",
        ),
        ({"source": np.zeros(7)}, r"source has shape \(7,\)"),
        ({"sensitive_features": np.arange(400) % 3}, "sensitive_features has 3 distinct values"),
        ({"sensitive_features": np.zeros(400)}, "sensitive_features has 1 distinct value"),
        ({"y": np.arange(400) % 3}, "y has 3 distinct values"),
        ({"X": np.full((400, 2), np.nan)}, "X has value NaN in row 0, column 0"),
    ],
)
def test_bad_input(problem, change, text):
    with pytest.raises(ValueError, match=text):
        ms.FLEA().fit(**(problem | change))


@pytest.mark.parametrize("n_keep", [2, 6, 0.5, 0, "most", True])
def test_bad_n_keep(problem, n_keep):
    with pytest.raises(ValueError, match="n_keep has value"):
        ms.FLEA(n_keep=n_keep).fit(**problem)


def test_bad_option(problem):
    with pytest.raises(ValueError, match="disparity has value 'both'"):
        ms.FLEA(disparity="both").fit(**problem)


def test_documented_fallbacks(problem):
    one_group = problem | {"sensitive_features": problem["sensitive_features"] & (problem["source"] != "a")}
    with pytest.warns(ms.SourceWarning, match="one group only in source 'a'"):
        found = ms.FLEA(disparity="signed").fit(**one_group)
    assert (found.disparity_[0, 1:] == 2).all() and "a" not in found.kept_sources_
    one_class = problem | {"y": problem["y"] & (problem["source"] != "a")}
    assert np.isfinite(ms.FLEA(disparity="signed").fit(**one_class).d_scores_).all()
    uneven = problem | {"source": np.repeat([0, 1, 2], [10, 190, 200])}
    with pytest.warns(ms.SourceWarning, match="sizes from 10 to 200 rows"):
        ms.FLEA(disparity="signed").fit(**uneven)


def test_warns_where_swapped_groups_would_pass(problem):
    balanced = problem | {"X": problem["X"][:, :2], "sensitive_features": np.arange(400) % 2}
    with pytest.warns(ms.SourceWarning, match='disparity="signed"'):
        ms.FLEA().fit(**balanced)


def test_published_reference_case(shared_data):
    data, _ = ms.load_dataset("germancredit", shared_data / "flea").split(0)
    source = ms.assign_sources(len(data.y), 5)
    clean = ms.TrainingSet(data.X, data.y, data.a, source, data.protected)
    chosen = ms.choose_sources(5, 2, 0)
    import jax

    bad = ms.manipulate("flip#target", clean, chosen, jax.random.key(0))
    found = ms.FLEA().fit(bad.X, bad.y, sensitive_features=bad.a, source=bad.source)
    disc = [0.187, 0.231, 0.544, 0.500, 0.181, 0.531, 0.463, 0.531, 0.538, 0.194]
    disp = [0.453, 0.381, 0.503, 0.628, 0.550, 0.694, 0.486, 0.619, 0.560, 0.590]
    upper = np.triu_indices(5, 1)
    np.testing.assert_allclose(found.discrepancy_[upper], disc, atol=6e-4)
    np.testing.assert_allclose(found.disparity_[upper], disp, atol=0.05)
    assert found.kept_sources_.tolist() == [0, 1, 2] == found.kept_by_["discrepancy"].tolist()
    assert found.kept_by_["disparity"].tolist() == [0, 1, 2]
    assert len(set(found.kept_by_["disbalance"]) & {3, 4}) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_columns_of_huge_and_tiny_numbers_count_as_others_do(problem, fitted, scale):
    X = problem["X"] * [scale, 1, 1]
    found = ms.FLEA().fit(**problem | {"X": np.column_stack([X, np.full(400, scale)])})  # and a constant one
    np.testing.assert_allclose(found.d_scores_, fitted.d_scores_, atol=0.05)
    assert found.kept_sources_.tolist() == fitted.kept_sources_.tolist()
