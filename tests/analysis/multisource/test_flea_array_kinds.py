"""Every array-like of pandas, NumPy and JAX at every public function; missing values; what is undefined."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from sparsejax.analysis import multisource as ms

ROWS = 90
rng = np.random.default_rng(0)
A = (rng.random(ROWS) > 0.4).astype(int)
X = np.c_[rng.normal(size=(ROWS, 2)), A]
Y = (X[:, 0] + rng.normal(size=ROWS) > 0).astype(int)
SOURCE = np.repeat(list("abc"), ROWS // 3)

BINARY = {
    "list": lambda v: [int(x) for x in v],
    "list of NumPy scalars": lambda v: [np.int8(x) for x in v],
    "list of booleans": lambda v: [bool(x) for x in v],
    "tuple": lambda v: tuple(v.tolist()),
    "bool": lambda v: v.astype(bool),
    "float32": lambda v: v.astype(np.float32),
    "object": lambda v: v.astype(object),
    "column": lambda v: v[:, None],
    "jax": jnp.asarray,
    "jax bfloat16": lambda v: jnp.asarray(v, jnp.bfloat16),
    "series": lambda v: pd.Series(v, index=range(100, 100 + len(v))),
    "Int64": lambda v: pd.Series(v, dtype="Int64"),
    "boolean": lambda v: pd.Series(v, dtype="boolean"),
    "Float32": lambda v: pd.array(v, dtype="Float32"),
    "categorical": lambda v: pd.Categorical(v),
    "index": pd.Index,
    "frame": lambda v: pd.DataFrame({"v": v}),
}
TEXT = {
    "list": list,
    "object": lambda v: v.astype(object),
    "bytes": lambda v: v.astype("S1"),
    "series": pd.Series,
    "string": lambda v: pd.Series(v, dtype="string"),
    "categorical": lambda v: pd.Series(v).astype("category"),
    "index": pd.Index,
    "numbers": lambda v: np.searchsorted(np.unique(v), v),
    "jax": lambda v: jnp.asarray(np.searchsorted(np.unique(v), v)),
}
MISSING = {
    "None": lambda v: [None, *v[1:].tolist()],
    "NaN": lambda v: [float("nan"), *v[1:].tolist()],
    "pd.NA": lambda v: [pd.NA, *v[1:].tolist()],
    "NumPy text": lambda v: np.array([str(np.nan), *v[1:].tolist()]),
    "series": lambda v: pd.Series(v).where(np.arange(len(v)) > 0),
    "masked": lambda v: np.ma.masked_array(v, np.arange(len(v)) == 0),
    "categorical": lambda v: pd.Categorical([None, *v[1:].tolist()]),
}
NULLABLE = MISSING | {
    "Int64": lambda v: pd.Series([pd.NA, *v[1:].tolist()], dtype="Int64"),
    "boolean": lambda v: pd.Series([pd.NA, *(v[1:] > 0).tolist()], dtype="boolean"),
}
STRINGS = MISSING | {"string": lambda v: pd.Series([pd.NA, *v[1:].tolist()], dtype="string")}


class Cheap(ms.KonstantinovFilter):
    """A filter whose input handling is that of all, without fits."""

    def fit(self, X, y, *, sensitive_features=None, source=None):
        data = self._inputs(X, y, sensitive_features, source)
        self.read_ = data
        self._keep(data, np.array([0, 2]))
        return self


def test_the_filter_reads_every_kind_alike():
    plain = Cheap().fit(X, Y, sensitive_features=A, source=SOURCE)
    for name, kind in BINARY.items():
        read = Cheap().fit(X, kind(Y), sensitive_features=kind(A), source=SOURCE).read_
        np.testing.assert_array_equal(read.y, plain.read_.y, err_msg=name)
        np.testing.assert_array_equal(read.a, plain.read_.a, err_msg=name)
    for name, kind in TEXT.items():
        cheap = Cheap().fit(X, Y, sensitive_features=A, source=kind(SOURCE))
        np.testing.assert_array_equal(cheap.support_, plain.support_, err_msg=name)
        np.testing.assert_array_equal(cheap.mask(kind(SOURCE)), plain.support_, err_msg=name)
    frame = pd.DataFrame(X, columns=list("uvw"))
    kinds = [
        X.tolist(),
        jnp.asarray(X),
        frame,
        frame.astype("Float64"),
        frame.astype(object),
        frame.astype({"w": bool}),
    ]
    for kind in kinds:
        np.testing.assert_allclose(Cheap().fit(kind, Y, sensitive_features=A, source=SOURCE).read_.X, X, rtol=1e-6)


@pytest.mark.parametrize("learner", [ms.PlainLearner(), ms.RegularisedLearner()], ids=["plain", "regularised"])
def test_learners_read_every_kind_alike(learner):
    plain = learner.fit(X, Y, sensitive_features=A)
    for name, kind in BINARY.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # scikit-learn's, about a column
            other = type(learner)().fit(X, kind(Y), sensitive_features=kind(A))
        np.testing.assert_array_equal(other.coef_, plain.coef_, err_msg=name)
    words = type(learner)().fit(X, pd.Series(np.where(Y, "yes", "no"), dtype="string"), sensitive_features=A)
    assert words.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(words.predict(pd.DataFrame(X).to_numpy()) == "yes", plain.predict(X) == 1)


def test_other_functions_read_every_kind_alike():
    score = rng.random(ROWS)
    plain = ms.evaluate_decisions(Y, A, sensitive_features=A, y_score=score)
    weights = ms.reweigh(Y, sensitive_features=A)
    key = jax.random.key(0)
    bad = ms.manipulate("flip#target", ms.TrainingSet(X, Y, A, SOURCE, 2), np.array(["b"]), key)
    for name, kind in BINARY.items():
        other = ms.evaluate_decisions(kind(Y), kind(A), sensitive_features=kind(A), y_score=pd.Series(score))
        assert other == plain, name
        np.testing.assert_array_equal(ms.reweigh(kind(Y), sensitive_features=kind(A)), weights, err_msg=name)
        again = ms.manipulate("flip#target", ms.TrainingSet(X.tolist(), kind(Y), kind(A), list(SOURCE), 2), ["b"], key)
        for field in ("X", "y", "a"):
            np.testing.assert_array_equal(getattr(again, field), getattr(bad, field), err_msg=name)
    pool = Cheap().fit(X, Y, sensitive_features=A, source=SOURCE)
    keep = SOURCE != "b"
    pooled = pool.pool(X.tolist(), jnp.asarray(Y), pd.Series(A, index=range(7, 7 + ROWS)), None, source=list(SOURCE))
    for one, whole in zip(pooled[:3], (X, Y, A), strict=True):
        np.testing.assert_array_equal(np.asarray(one), whole[keep])
    assert pooled[3] is None
    with pytest.raises(ValueError, match="arrays has an array of 5 rows; expected 90"):
        pool.pool(X[:5], source=SOURCE)


@pytest.mark.parametrize("n_keep", [2, np.int64(2), np.float32(0.6), jnp.int32(2), jnp.float32(0.6), np.array(2)])
def test_numbers_of_numpy_and_jax_are_numbers(n_keep):
    scores = [[0, 1, 9], [1, 0, 9], [9, 9, 0]]
    assert ms.select_sources(pd.DataFrame(scores), np.int64(2)).tolist() == [0, 1]
    assert ms.quantiles(jnp.asarray(scores), jnp.int32(2)).tolist() == [1, 1, 9]
    from sparsejax.analysis.multisource.filter._select import number_to_keep

    assert number_to_keep(n_keep, 3) == 2
    for bad in ([[0, 1]], [[0, np.nan], [1, 0]]):
        with pytest.raises(ValueError, match="select_sources: scores has"):
            ms.select_sources(bad, 1)
    with pytest.raises(ValueError, match="ties has value 'none'"):
        ms.select_sources(scores, 2, "none")
    assert ms.choose_sources(jnp.int32(5), np.int64(2), 0).tolist() == [3, 4]
    assert len(ms.RobustLearner(jnp.float32(0.1), steps=3).fit(X, Y, sensitive_features=A).coef_) == 1
    with pytest.raises(ValueError, match="tv has value nan"):
        ms.RobustLearner(float("nan")).fit(X, Y, sensitive_features=A)
    with pytest.raises(ValueError, match="n_sources has value 0; expected 1 to 3"):
        ms.assign_sources(3, 0)


@pytest.mark.parametrize("kind", NULLABLE)
def test_missing_labels_and_groups_are_refused_with_their_row(kind):
    y, a = NULLABLE[kind](Y), NULLABLE[kind](A)
    match = "(y|sensitive_features) has a missing value in row 0; expected a value in every row"
    for call in (
        lambda: Cheap().fit(X, y, sensitive_features=A, source=SOURCE),
        lambda: Cheap().fit(X, Y, sensitive_features=a, source=SOURCE),
        lambda: ms.PlainLearner().fit(X, y),
        lambda: ms.RegularisedLearner().fit(X, Y, sensitive_features=a),
        lambda: ms.FLEAClassifier(ms.PlainLearner(), Cheap()).fit(X, y, sensitive_features=A, source=SOURCE),
        lambda: ms.reweigh(y, sensitive_features=A),
        lambda: ms.reweigh(Y, sensitive_features=a),
        lambda: ms.evaluate_decisions(Y, A, sensitive_features=a),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    for side in ((y, A), (A, y)):
        with pytest.raises(ValueError, match=r"evaluate_decisions: y_(true|pred) has a missing value in row 0"):
            ms.evaluate_decisions(*side, sensitive_features=A)


@pytest.mark.parametrize("kind", STRINGS)
def test_missing_source_labels_are_refused_with_their_row(kind):
    source = STRINGS[kind](SOURCE)
    cheap = Cheap().fit(X, Y, sensitive_features=A, source=SOURCE)
    for call in (
        lambda: Cheap().fit(X, Y, sensitive_features=A, source=source),
        lambda: cheap.mask(source),
        lambda: cheap.pool(X, source=source),
        lambda: ms.HierarchicalTERM().fit(X, Y, sensitive_features=A, source=source),
        lambda: ms.ResampledLearner().fit(X, Y, sensitive_features=A, source=source),
        lambda: ms.manipulate("none", ms.TrainingSet(X, Y, A, source), ["a"], jax.random.key(0)),
        lambda: ms.plot_scores(np.eye(ROWS), source),
    ):
        with pytest.raises(ValueError, match=r"sources? has a missing value in row 0; expected a value in every row"):
            call()


def test_labels_of_two_types_are_refused_and_types_are_not_confused():
    mixed = [1 if s == "a" else s for s in SOURCE]
    with pytest.raises(ValueError, match="source has values of the types int and str; expected values of one type"):
        Cheap().fit(X, Y, sensitive_features=A, source=mixed)
    numbered = Cheap().fit(X, Y, sensitive_features=A, source=np.searchsorted(list("abc"), SOURCE))
    with pytest.raises(ValueError, match="source has the unknown label '1'"):
        numbered.mask(["1", "2"])
    with pytest.raises(ValueError, match="chosen has the unknown label 7"):
        ms.manipulate("none", ms.TrainingSet(X, Y, A, np.arange(ROWS) % 3), [7], jax.random.key(0))
    thresholds = ms.PostprocessedLearner().fit(X, Y, sensitive_features=np.where(A, "m", "f"))
    with pytest.raises(ValueError, match="sensitive_features has the unknown label 1"):
        thresholds.predict(X, sensitive_features=A)
    series = pd.Series(np.where(A, "m", "f"), dtype="string")
    assert set(thresholds.predict(X, sensitive_features=series)) <= {0, 1}


def test_undefined_metrics_are_nan_with_their_reason():
    metrics = ms.evaluate_decisions([1, 1, 0, 1], [1, 0, 0, 1], sensitive_features=list("ffmm"), y_score=[3, 2, 1, 4])
    assert np.isnan([metrics["tnr_0"], metrics["eodds_violation"]]).all() and metrics["eo_violation"] == 0.5
    assert metrics.undefined == {
        "tnr_0": "no row with label 0 in the first group",
        "eodds_violation": "tnr_0 is undefined",
    }
    other = ms.evaluate_decisions([1, 1, 0, 0], [1, 0, 0, 1], sensitive_features=list("ffmm"))
    assert (
        np.isnan(other["eo_violation"]) and np.isnan(other["eodds_violation"]) and not np.isnan(other["dp_violation"])
    )
    assert other.undefined["auc"] == "no scores"
    assert other.undefined["eodds_violation"] == "tpr_1 and tnr_0 are undefined"
    alone = ms.evaluate_decisions([1, 1], [1, 0], sensitive_features=[0, 1], y_score=[0.1, 0.2])
    assert np.isnan(alone["auc"]) and alone.undefined["auc"] == "only label 1 occurs"
    with pytest.raises(ValueError, match="y_score has a missing value at row 1"):
        ms.evaluate_decisions([1, 0], [1, 0], sensitive_features=[0, 1], y_score=[0.1, None])
    with pytest.raises(ValueError, match=r"y_pred has values \[0, 2\]; expected 2 zeros and ones"):
        ms.evaluate_decisions([1, 0], [2, 0], sensitive_features=[0, 1])


def test_sources_of_a_study_are_read_too(tmp_path):
    data = ms.TabularDataset("toy", X, Y, A, 2, ("p", "q", "a"))
    options = {"adversaries": ["none"], "learners": ["none"], "methods": ["oracle"], "seeds": np.int64(1)}
    table = ms.run_study(data, tmp_path, source=pd.Categorical(SOURCE), n_malicious=np.int64(1), **options)
    assert set(table["n_sources"]) == {3}
    with pytest.raises(ValueError, match="run_study: source has a missing value in row 0"):
        ms.run_study(data, tmp_path, source=[None, *SOURCE[1:]], n_malicious=1, **options)
    with pytest.raises(ValueError, match=r"run_study: source has shape \(3,\)"):
        ms.run_study(data, tmp_path, source=list("abc"), n_malicious=1, **options)
    with pytest.raises(ValueError, match=r"learners has value 'nonee'; .*Did you mean 'none'\?"):
        ms.run_study(data, tmp_path, **(options | {"learners": ["nonee"]}))
    (file,) = tmp_path.glob("*.json")
    file.write_text('[{"learner": ')
    with pytest.raises(ValueError, match=f"file '{file}' has damaged content .* Delete the file to compute it again"):
        ms.run_study(data, tmp_path, source=SOURCE, n_malicious=1, **options)


def test_tables_of_the_study_refuse_missing_labels(shared_data):
    table = pd.read_csv(shared_data / "flea" / "german_credit_data.csv")
    for column in ("Sex", "Risk"):
        gaps = table.astype({column: "string"})
        gaps.loc[4, column] = pd.NA
        with pytest.raises(
            ValueError, match=rf"table\['{column}'\] has 1 missing values; expected none. First in row 4"
        ):
            ms.encode_table("germancredit", gaps)
    renamed = table.rename(columns={"Saving accounts": "Savings accounts"})
    with pytest.raises(ValueError, match=r"no column 'Saving accounts'; .* Did you mean 'Savings accounts' for"):
        ms.encode_table("germancredit", renamed)
    with pytest.raises(ValueError, match="table has values that cannot be encoded"):
        ms.encode_table("germancredit", table.astype({"Age": str}).assign(Age="old"))
