"""Array-likes and data frames of pandas, NumPy and JAX in the transfer functions; missing and undefined values."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from sparsejax.analysis import transfer
from sparsejax.analysis.transfer import Backbone, Features, SGDConfig

TRUE, PREDICTED = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0])
KINDS = {
    "list": lambda v: v.tolist(),
    "list of NumPy scalars": list,
    "jax": jnp.asarray,
    "series": lambda v: pd.Series(v, index=range(9, 9 + len(v))),
    "Int64": lambda v: pd.Series(v, dtype="Int64"),
    "float": lambda v: v.astype(float),
    "object": lambda v: v.astype(object),
    "categorical": pd.Categorical,
}


@pytest.fixture(scope="module")
def runs():
    rows = []
    for method, sparsity, level in (("Dense", 0.0, 0.9), ("GMP", 0.9, 0.8), ("AC/DC", 0.9, 0.85)):
        for regime, gain in (("linear", 0.0), ("full", 1.0)):
            for dataset, shift in (("cars", 0.0), ("pets", 0.02), ("dtd", 0.05)):
                for seed in (0, 1):
                    row = {"arch": "net", "regime": regime, "method": method, "sparsity": sparsity, "dataset": dataset}
                    rows.append(
                        row | {"seed": seed, "value": level - shift * (1 + sparsity - gain * level) + 0.01 * seed}
                    )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_accuracies_read_every_kind(kind):
    y, predicted = KINDS[kind](TRUE), KINDS[kind](PREDICTED)
    assert transfer.top1_accuracy(y, predicted) == 0.6
    assert transfer.per_class_accuracy(y, predicted, np.int64(4)).tolist()[:3] == [0.5, 1.0, 0.5]
    assert transfer.mean_per_class_accuracy(y, predicted, jnp.int32(3)) == pytest.approx(2 / 3)


def test_accuracies_refuse_what_they_would_get_wrong():
    words = pd.Series(["cat", "dog"], dtype="string")
    assert transfer.top1_accuracy(words, ["cat", "cat"]) == 0.5
    with pytest.raises(ValueError, match="top1_accuracy: y_pred has numbers; expected text, as y_true"):
        transfer.top1_accuracy(words, [0, 1])
    with pytest.raises(ValueError, match="per_class_accuracy: y_true has value 'cat'; expected class numbers"):
        transfer.per_class_accuracy(words, words, 2)
    with pytest.raises(ValueError, match=r"y_pred has value 0\.5; expected class numbers"):
        transfer.mean_per_class_accuracy([0, 1], [0.5, 1])
    for gap in (None, np.nan, pd.NA):
        with pytest.raises(ValueError, match="y_pred has a missing value at row 1; expected a class for every example"):
            transfer.top1_accuracy([0, 1], [0, gap])


def test_tests_and_ratios_read_every_kind():
    d = np.array([0.1, 0.2, -0.05, 0.3])
    expected = transfer.wilcoxon_exact(d)
    for kind in (list, jnp.asarray, pd.Series, lambda v: pd.Series(v, dtype="Float64")):
        assert transfer.wilcoxon_exact(kind(d)) == expected
        np.testing.assert_allclose(transfer.holm(kind(np.abs(d))), transfer.holm(np.abs(d)), rtol=1e-6)
        ratio = transfer.relative_error_increase(kind(np.abs(d)), 0.5, min_error=np.float64(0.1))
        np.testing.assert_allclose(ratio, (0.5 - np.abs(d)) / 0.5, rtol=1e-6)
    assert transfer.relative_error_increase(jnp.float32(0.75), np.float32(0.5)) == -0.5
    assert np.isnan(transfer.wilcoxon_exact([])) and transfer.wilcoxon_exact([0.0]) == 1
    for call, words in (
        (lambda: transfer.wilcoxon_exact([0.1, None]), "differences has a missing value at row 1"),
        (lambda: transfer.relative_error_increase([0.1, np.nan], 0.5), "accuracy has a missing value at row 1"),
        (lambda: transfer.relative_error_increase(0.1, pd.NA), "dense has a missing value"),
        (lambda: transfer.relative_error_increase(0.5, 0.4, min_error=np.nan), "min_error has value nan"),
        (lambda: transfer.holm([0.5, 2.0]), "p_values has shape"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_tables_read_categorical_string_and_nullable_columns(runs):
    kinds = dict.fromkeys(("arch", "regime", "method", "dataset"), "category")
    kinds |= {"sparsity": "Float64", "value": "Float64", "seed": "Int64"}
    for other in (runs.astype(kinds), runs.astype(kinds | dict.fromkeys(("method", "dataset"), "string"))):
        for function in (transfer.cells, transfer.aggregate, transfer.compare_to_dense, transfer.rank_methods):
            pd.testing.assert_frame_equal(function(other), function(runs))
    pd.testing.assert_frame_equal(transfer.report(other).tables["cells"], transfer.report(runs).tables["cells"])


@pytest.mark.parametrize("column", ["arch", "regime", "method", "dataset", "seed", "value", "sparsity"])
def test_missing_cells_are_refused_with_their_row(runs, column):
    nullable = {"seed": "Int64", "value": "Float64", "sparsity": "Float64"}.get(column, "string")
    for gaps, gap in ((runs.astype({column: object}), None), (runs.astype({column: nullable}), pd.NA)):
        gaps.loc[3, column] = gap
        with pytest.raises(ValueError, match=rf"results\['{column}'\] has 1 missing values; .* First in row 3"):
            transfer.cells(gaps)
    described = runs.assign(metric=pd.Series(["top1", None] + ["top1"] * (len(runs) - 2)))
    with pytest.raises(ValueError, match=r"results\['metric'\] has 1 missing values; .* First in row 1"):
        transfer.cells(described)


def test_columns_are_asked_for_by_their_nearest_name(runs):
    with pytest.raises(ValueError, match=r"no column 'sparsity'; .* Did you mean 'sparsty' for 'sparsity'\?"):
        transfer.cells(runs.rename(columns={"sparsity": "sparsty"}))
    with pytest.raises(ValueError, match="results has type dict; expected a data frame"):
        transfer.cells({})
    with pytest.raises(ValueError, match=r"results\['value'\] has dtype object; expected numbers"):
        transfer.cells(runs.assign(value="high"))
    with pytest.raises(ValueError, match=r"methods has value 'GPM'; .* Did you mean 'GMP'\?"):
        transfer.compare_methods(runs, "GPM", "AC/DC")


def test_upstream_accuracies_are_one_for_each_model(runs):
    upstream = pd.DataFrame({"arch": "net", "method": ["Dense", "GMP", "AC/DC"], "sparsity": [0.0, 0.9, 0.9]})
    upstream = upstream.assign(accuracy=[0.9, 0.8, 0.85])
    expected = transfer.upstream_correlation(runs, upstream)
    kinds = {"method": "category", "sparsity": "Float64", "accuracy": "Float64"}
    pd.testing.assert_frame_equal(transfer.upstream_correlation(runs, upstream.astype(kinds)), expected)
    for other, words in (
        (pd.concat([upstream, upstream[1:2]]), r"upstream has two rows for \(net, GMP, 0\.9\)"),
        (upstream.assign(accuracy=[0.9, None, 0.8]), r"upstream\['accuracy'\] has 1 missing values; .* First in row 1"),
        (upstream.drop(columns="arch"), "upstream has no column 'arch'"),
        (upstream.assign(accuracy=90.0), "accuracies up to 90; expected fractions"),
    ):
        for function in (transfer.upstream_correlation, transfer.plot_upstream):
            with pytest.raises(ValueError, match=words):
                function(runs, other)


def test_files_are_named_when_they_cannot_be_read(runs, tmp_path):
    transfer.report(runs).save(tmp_path)
    for content, words in (
        (b"", "no readable table"),
        (b"\xff\xfe\x00a,b\n1,2\n", "no readable table"),
        (b'a,b\n1,2,3\n"', "no readable table"),
        (b"arch,method\nnet,GMP\n", "no column 'regime', 'sparsity'"),
    ):
        (tmp_path / "runs.csv").write_bytes(content)
        with pytest.raises(ValueError, match=f"runs.csv'.* has {words}"):
            transfer.read_results(tmp_path / "runs.csv")
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(FileNotFoundError, match="expected an existing CSV file"):
            transfer.read_results(path)


def test_text_that_a_spreadsheet_would_run_is_written_as_text(runs, tmp_path):
    formula = "=HYPERLINK(1)"
    transfer.report(runs.assign(dataset=runs["dataset"].replace("cars", formula))).save(tmp_path)
    written = pd.read_csv(tmp_path / "cells.csv")
    assert f"'{formula}" in set(written["dataset"]) and formula not in set(written["dataset"])
    plain = transfer.report(runs)
    plain.save(tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "cells.csv"), plain.tables["cells"])


def test_features_and_settings_take_every_kind():
    plain = Features(np.ones((3, 2), np.float32), np.array([0, 1, 2], np.int32))
    for x, y in (
        ([[1, 1]] * 3, [0, 1, 2]),
        (pd.DataFrame(np.ones((3, 2))), pd.Series([0, 1, 2], dtype="Int64")),
        (jnp.ones((3, 2)), jnp.arange(3)),
    ):
        other = Features(x, y)
        assert other.x.dtype == np.float32 and other.y.dtype == np.int32
        np.testing.assert_array_equal(other.x, plain.x)
        np.testing.assert_array_equal(other.y, plain.y)
    for row, value in ((0, None), (1, -1), (2, 0.5)):
        bad = [0, 1, 2]
        bad[row] = value
        with pytest.raises(ValueError, match=f"Features: y has value .* in row {row}; expected class numbers from 0"):
            Features(plain.x, bad)
    config = SGDConfig(learning_rate=np.float32(0.5), epochs=jnp.int32(3), drops=(np.int64(1),))
    assert json.dumps([config.learning_rate, config.epochs, config.drops]) == "[0.5, 3, [1]]"
    assert Backbone(None, "GMP", np.float64(0.9)).sparsity == Backbone(None, "GMP", jnp.asarray(0.9)).sparsity == 0.9
    for bad in (1.0, -0.1, np.nan, 90):
        with pytest.raises(ValueError, match="Backbone: sparsity has value"):
            Backbone(None, "GMP", bad)


def test_undefined_correlations_are_nan_with_their_reason(runs):
    flat = runs.assign(value=runs["regime"].map({"linear": 0.7, "full": 0.8}) - 0.1 * runs["sparsity"])
    found = transfer.report(flat)
    assert found.tables["difficulty"][["pearson_r", "spearman_p", "slope"]].isna().all(axis=None)
    assert any(text.startswith("difficulty: pearson_r is undefined (-) where all tasks") for text in found.caveats)
    tied = transfer.report(runs.assign(value=0.5))
    assert tied.tables["ranks"]["friedman_p"].isna().all() and (tied.tables["ranks"]["mean_rank"] == 2).all()
    assert any(text.startswith("ranks: friedman_p is undefined") for text in tied.caveats)
    single = transfer.report(runs[(runs["dataset"] == "cars") & (runs["seed"] == 0)])
    assert {text.split(":")[0] for text in single.caveats if "undefined (-)" in text} >= {"aggregates", "cells"}
