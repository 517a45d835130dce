"""The comparison: every number against the single functions, views, intervals, countermeasures, bad input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from sparsejax.analysis import bias


def row_of(report, **equal):
    (row,) = list(report.table.where(**equal))
    return row


def at(report, **equal):
    return report.table.where(thresholds="default", **equal)


def decided(inputs, sparsity, seed):
    z = inputs["dense"] if sparsity == 0 else inputs["sparse"][sparsity]
    return z[seed], bias.hard_predictions(z[seed])


@pytest.mark.parametrize(("sparsity", "seed"), [(0, 0), (0.9, 1), (0.99, 2)])
def test_the_table_agrees_with_the_single_functions(report, inputs, sparsity, seed):
    z, yhat = decided(inputs, sparsity, seed)
    t, groups = inputs["labels"], inputs["groups"]
    p = 1 / (1 + np.exp(-z))
    rows = at(report, sparsity=float(sparsity), seed=f"run {seed}")

    def values(metric, group="", level=""):
        return rows.where(metric=metric, group=group, level=level)["value"]

    np.testing.assert_allclose(values("accuracy"), bias.accuracy(t, yhat))
    np.testing.assert_allclose(values("auc"), bias.auc(t, z).value)
    np.testing.assert_allclose(values("uncertainty"), bias.uncertainty(z))
    np.testing.assert_allclose(values("high_uncertainty"), bias.uncertainty(z, band=0.1))
    np.testing.assert_allclose(values("expected_calibration_error"), bias.expected_calibration_error(t, p))
    np.testing.assert_allclose(values("rare_value_ratio"), bias.rare_value_ratio(t, yhat, y_train=t).value)
    np.testing.assert_allclose(values("tcb"), bias.tcb(t, yhat, y_train=t).value)
    np.testing.assert_allclose(values("interdependence_hard"), bias.interdependence(z).value)
    np.testing.assert_allclose(values("interdependence_prob"), bias.interdependence(z, on="prob").value)
    unsure = bias.susceptible_samples(z).mask
    for name, column in groups.items():
        rates = bias.group_rates(t, yhat, column, uncertain=unsure)
        for metric, found in rates.by_group.items():
            for level, expected in zip(rates.levels, found.value, strict=True):
                np.testing.assert_allclose(values(metric, name, level), expected)
    for metric, found in bias.rate_gaps(t, yhat, groups["side"]).items():
        np.testing.assert_allclose(values(f"{metric}_gap", "side", "1"), found.value)
    ba = bias.bias_amplification(t, yhat, groups, y_train=t, sensitive_train=groups)
    assert ba.groups == report.pair_names
    for pair, (name, level) in enumerate((("side", "1"), ("hair", "black"), ("hair", "blond"), ("hair", "grey"))):
        np.testing.assert_allclose(values("bias_amplification", name, level), ba.value[:, pair])
        reasons = rows.where(metric="bias_amplification", group=name, level=level)["reason"]
        assert reasons == ba.reason[:, pair].tolist()


def test_gaps_of_many_levels_are_against_the_rest(report, inputs):
    _, yhat = decided(inputs, 0.9, 0)
    t, blond = inputs["labels"], inputs["groups"]["hair"] == "blond"
    expected = bias.rate_gaps(t, yhat, blond)["false_positive_rate"].value
    found = at(report, sparsity=0.9, seed="run 0", metric="false_positive_rate_gap", level="blond")["value"]
    np.testing.assert_allclose(found, expected)


def test_changes_are_sparse_minus_dense_of_the_same_seed(report):
    for metric in ("accuracy", "auc", "uncertainty"):
        dense = at(report, sparsity=0.0, seed="run 2", metric=metric, group="")["value"]
        sparse = at(report, sparsity=0.99, seed="run 2", metric=metric, group="")["value"]
        change = at(report, sparsity=0.99, seed="run 2", metric=f"{metric}_change", group="")["value"]
        np.testing.assert_allclose(change, np.subtract(sparse, dense))
    relative = at(report, sparsity=0.9, seed="run 0", metric="false_negative_rate_relative_change", group="")
    dense = at(report, sparsity=0.0, seed="run 0", metric="false_negative_rate", group="")["value"]
    sparse = at(report, sparsity=0.9, seed="run 0", metric="false_negative_rate", group="")["value"]
    for got, reason, before, after in zip(relative["value"], relative["reason"], dense, sparse, strict=True):
        assert (
            (np.isnan(got) and reason == "zero_reference") if before == 0 else got == pytest.approx(after / before - 1)
        )


def test_calibrated_thresholds_are_a_second_complete_set(report, inputs):
    assert set(report.table["thresholds"]) == {"default", "calibrated"}
    z, t = inputs["sparse"][0.99][0], inputs["labels"]
    theta = bias.calibrate_thresholds(z, t)
    expected = bias.accuracy(t, bias.hard_predictions(z, theta))
    found = report.table.where(thresholds="calibrated", sparsity=0.99, seed="run 0", metric="accuracy", group="")
    np.testing.assert_allclose(found["value"], expected)
    # The collapsed attribute is predicted again.
    ratio = report.overall.where(sparsity=0.99, metric="rare_value_ratio", thresholds="calibrated")["value"]
    assert ratio[0] == pytest.approx(1.0)
    first = bias.compare(**inputs, threshold="calibrated")
    assert first.primary == "calibrated" and "default" in first.table["thresholds"]


def test_bias_is_averaged_over_the_cells_that_every_run_has(report, inputs):
    t, groups = inputs["labels"], inputs["groups"]
    runs = []
    for sparsity in (0, 0.5, 0.9, 0.99):
        for seed in range(3):
            _, yhat = decided(inputs, sparsity, seed)
            runs.append(bias.bias_amplification(t, yhat, groups, y_train=t, sensitive_train=groups))
    expected = bias.mean_amplification(runs)
    for index, sparsity in enumerate((0.0, 0.5, 0.9, 0.99)):
        rows = report.overall.where(thresholds="default", sparsity=sparsity, metric="bias_amplification")
        (row,) = list(rows)
        assert row["value"] == pytest.approx(expected.overall[3 * index : 3 * index + 3].mean())
        assert row["cells"] == expected.cells[0]
        assert row["lost"] == expected.lost[3 * index : 3 * index + 3].sum()
    assert any("99 % predicts nothing positive in" in warning for warning in report.warnings)


def test_means_and_spread_over_seeds(report):
    for sparsity in (0.0, 0.9):
        each = [
            np.mean(at(report, sparsity=sparsity, seed=f"run {r}", metric="accuracy", group="")["value"])
            for r in range(3)
        ]
        (row,) = list(report.overall.where(thresholds="default", sparsity=sparsity, metric="accuracy"))
        assert row["value"] == pytest.approx(np.mean(each)) and row["sd"] == pytest.approx(np.std(each, ddof=1))
        assert row["seeds"] == 3


def test_flips_and_their_control(report, inputs):
    flips = report.flips
    dense, sparse = bias.hard_predictions(inputs["dense"][1]), bias.hard_predictions(inputs["sparse"][0.9][1])
    kinds = bias.flips(dense, sparse, y_true=inputs["labels"], y_train=inputs["labels"])
    found = bias.susceptible_samples(inputs["dense"][1])
    expected = bias.flip_coverage(kinds.flip, found.mask, found.score)
    (row,) = list(flips.where(sparsity=0.9, seed="run 1"))
    assert [row[name] for name in expected._fields] == pytest.approx(list(expected))
    assert row["right_to_wrong"] == pytest.approx(kinds.right_to_wrong.sum() / kinds.flip.sum())
    assert row["right_to_wrong"] + row["wrong_to_right"] == pytest.approx(1)
    churn = flips.where(model="churn")
    assert len(churn) == 3
    seeds = bias.hard_predictions(inputs["dense"])
    assert churn["flip_rate"][0] == pytest.approx((seeds[0] != seeds[1]).mean())
    # 50 % hardly changes a decision, 90 % changes more than the seed does.
    assert report.safe_sparsity()[0] == 0.5


def test_susceptible_view_takes_its_own_band(report, inputs):
    view = report.susceptible(0.1)
    (row,) = list(view.where(sparsity=0.9, seed="run 0", attribute="b"))
    found = bias.susceptible_samples(inputs["dense"][0], band=0.1)
    assert row["uncertain_share"] == pytest.approx(found.mask[:, 1].mean()) and row["band"] == 0.1


def test_difference_and_ratio_use_fairlearns_methods(report, inputs):
    per_seed = [
        bias.group_rates(inputs["labels"], decided(inputs, 0.9, r)[1], inputs["groups"]["hair"]) for r in range(3)
    ]
    for kind in ("difference", "ratio"):
        for method in ("between_groups", "to_overall"):
            view = getattr(report, kind)(method).where(
                thresholds="default", sparsity=0.9, group="hair", metric="accuracy"
            )
            expected = np.mean([getattr(rates, kind)(method)["accuracy"] for rates in per_seed], axis=0)
            np.testing.assert_allclose(view["value"], expected)
    with pytest.raises(ValueError, match="method has value 'max'"):
        report.ratio("max")


def test_other_views(report, inputs):
    t = inputs["labels"]
    (row,) = list(report.by_attribute.where(thresholds="default", sparsity=0.99, attribute="rare", metric="accuracy"))
    expected = [bias.accuracy(t, decided(inputs, 0.99, r)[1])[3] for r in range(3)]
    assert row["value"] == pytest.approx(np.mean(expected))
    cells = report.bias.where(thresholds="default", sparsity=0.99, seed="run 0", attribute="rare", group="side")
    assert cells["reason"] == ["no_predicted_positives"]
    assert report.bias.where(attribute="side", group="side")["reason"] == ["self"] * 24
    pooled = report.reliability.where(model="dense", attribute="")
    assert sum(pooled["count"]) == 3 * t.size
    p = 1 / (1 + np.exp(-inputs["dense"]))
    table = bias.reliability_table(np.tile(t, (3, 1)), p.reshape(-1, 4))
    np.testing.assert_allclose(
        report.reliability.where(model="dense", attribute="b")["mean_label"], table.mean_label[:, 1], equal_nan=True
    )
    (pie_row,) = list(report.exemplars.where(sparsity=0.9, attribute=""))
    mask = bias.pie(bias.hard_predictions(inputs["dense"]), bias.hard_predictions(inputs["sparse"][0.9]))
    assert pie_row["count"] == mask.sum()
    risks = [bias.bias_risk(z, t, t, inputs["groups"], kind="logits").risk for z in inputs["dense"]]
    np.testing.assert_allclose(report.risk.risk, np.mean(risks, axis=0))
    assert len(report.by_group.where(metric="false_positive_rate", group="hair")) == 2 * 4 * 3 * 4


def test_mitigations(report, inputs):
    rows = report.mitigations()
    assert set(rows["countermeasure"]) == {
        "none", "thresholds",
        *(f"{p}override: {s}" for p in ("", "thresholds + ") for s in ("dense", "label", "abstain")),
    }  # fmt: skip
    t = inputs["labels"]
    mask = np.abs(inputs["dense"]) < np.log(9)
    dense, sparse = bias.hard_predictions(inputs["dense"]), bias.hard_predictions(inputs["sparse"][0.99])
    (row,) = list(rows.where(sparsity=0.99, countermeasure="override: dense"))
    expected = [bias.accuracy(t, np.where(mask[r], dense[r], sparse[r])).mean() for r in range(3)]
    assert row["accuracy"] == pytest.approx(np.mean(expected)) and row["overridden"] == pytest.approx(mask.mean())
    (label,) = list(rows.where(sparsity=0.99, countermeasure="override: label"))
    (none,) = list(rows.where(sparsity=0.99, countermeasure="none"))
    assert label["accuracy"] > row["accuracy"] > none["accuracy"]
    assert none["cells"] == row["cells"] > 0
    (dense_row,) = list(rows.where(strategy="dense"))
    assert dense_row["accuracy"] == pytest.approx(np.mean([bias.accuracy(t, y).mean() for y in dense]))


def test_intervals_are_paired(report, inputs):
    """The interval of a change is far narrower than the two intervals suggest, and agrees with a plain bootstrap."""
    row = row_of(report, thresholds="default", sparsity=0.9, seed="run 0", attribute="a", metric="accuracy", group="")
    change = row_of(
        report, thresholds="default", sparsity=0.9, seed="run 0", attribute="a", metric="accuracy_change", group=""
    )
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert change["ci_low"] < change["value"] < change["ci_high"]
    t, dense, sparse = inputs["labels"][:, 0], decided(inputs, 0, 0)[1][:, 0], decided(inputs, 0.9, 0)[1][:, 0]
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 600, 600) for _ in range(50)]
    expected = np.percentile([(sparse[i] == t[i]).mean() - (dense[i] == t[i]).mean() for i in draws], [2.5, 97.5])
    assert [change["ci_low"], change["ci_high"]] == pytest.approx(list(expected))
    undefined = report.table.where(metric="bias_amplification", attribute="side", group="side")
    assert np.isnan(undefined["ci_low"]).all()
    assert np.isnan(report.table.where(metric="auc")["ci_low"]).all()


def test_clusters_widen_intervals():
    rng = np.random.default_rng(0)
    t = np.repeat(rng.integers(0, 2, 100), 20)
    z = np.repeat(rng.normal(size=100), 20) + 0.01 * rng.normal(size=2000)

    def width(clusters):
        report = bias.compare(z, z + 0.1, t, n_boot=200, clusters=clusters)
        row = row_of(report, model="dense", metric="accuracy")
        return row["ci_high"] - row["ci_low"]

    assert width(np.repeat(np.arange(100), 20)) > 3 * width(None)


def test_population_single_attribute_and_no_groups():
    rng = np.random.default_rng(0)
    t = rng.integers(0, 2, 100)
    z = 3.0 * t - 1.5 + rng.normal(size=100)
    single = bias.compare(z, z - 1, t, sparsity=0.9)
    assert single.inputs.sparse[0].label == "90 %" and len(single.bias) == 0 and len(single.exemplars) == 0
    assert "accuracy" in repr(single)
    population = bias.compare(z[None, :, None].repeat(4, 0), (z - 1)[:, None], t)
    assert len(population.runs) == 5 and len(population.churn) == 4
    strategies = bias.compare(z, {("GMP-RI", 0.9): z, ("GMP-PT", 0.9): z - 1}, t)
    assert [m.label for m in strategies.inputs.sparse] == ["90 % GMP-PT", "90 % GMP-RI"]
    assert single.safe_sparsity()[0] is None


def test_probabilities_give_what_logits_give(inputs):
    logits = {name: inputs[name] for name in ("labels", "groups")}
    one = bias.compare(inputs["dense"], inputs["sparse"][0.9], **logits)
    p = {name: 1 / (1 + np.exp(-z)) for name, z in (("dense", inputs["dense"]), ("sparse", inputs["sparse"][0.9]))}
    two = bias.compare(p["dense"], p["sparse"], **logits, kind="probs")
    np.testing.assert_allclose(one.table["value"], two.table["value"], atol=1e-6)
    exact = bias.compare([0.0, 1.0, 0.4], [0.0, 1.0, 0.6], [0, 1, 1], kind="probs", threshold=0.5)
    assert exact.overall.where(metric="accuracy")["value"] == pytest.approx([2 / 3, 1.0])


def test_missing_labels_are_masked_per_attribute():
    t = np.array([[1, -1], [0, 1], [1, 0], [0, -1]])
    z = np.array([[1.0, 5], [-1, 1], [1, -1], [1, 5]])
    report = bias.compare(z, z, t, missing=-1)
    rows = report.table.where(model="dense", metric="accuracy")
    assert rows["n"] == [4, 2] and rows["value"] == [0.75, 1.0]
    nan = bias.compare(z, z, np.where(t == -1, np.nan, t))
    assert nan.table["value"] == pytest.approx(report.table["value"], nan_ok=True)


def test_warnings_name_what_is_missing():
    t = np.array([0, 1] * 20)
    z = np.where(t == 1, 1.0, -1.0)
    report = bias.compare(z, z, np.stack([t], 1), {"g": np.r_[np.ones(3, int), np.zeros(37, int)]})
    text = " ".join(report.warnings)
    for words in ("No training labels", "No churn control", "No validation split", "g = 1 has 3 samples"):
        assert words in text
    one = bias.compare(z, z, np.ones(40, int))
    assert "One class only" in " ".join(one.warnings)
    (row,) = list(one.table.where(model="dense", metric="auc"))
    assert row["reason"] == "one_class" and np.isnan(row["value"])
    with pytest.raises(ValueError, match=r"BiasAudit.risk: val has no value"):
        _ = one.risk
    empty = bias.compare(z, z, t, {"g": np.zeros(40, int)})
    assert "No cell of bias amplification is defined in every run" in " ".join(empty.warnings)
    rows = empty.table.where(metric="accuracy", level="1")
    assert set(rows["reason"]) == {"empty_group"} and np.isnan(rows["value"]).all()


def test_assert_no_regression(report):
    report.assert_no_regression(max_accuracy_drop=1.0, max_flip_rate=1.0)
    with pytest.raises(
        AssertionError, match=r"99 %, rare / side: bias amplification undefined, .* never predicts rare"
    ):
        report.assert_no_regression(max_ba_increase=0.5)
    with pytest.raises(AssertionError, match=r"99 %, a: accuracy -0\.\d+, more than 0.01"):
        report.assert_no_regression(max_accuracy_drop=0.01)
    with pytest.raises(AssertionError, match=r"FNR gap .* > 0.05"):
        report.assert_no_regression(max_gap_increase=0.05)
    with pytest.raises(AssertionError, match="99 %: flip rate"):
        report.assert_no_regression(max_flip_rate=0.01)
    with pytest.raises(ValueError, match="at least one max_"):
        report.assert_no_regression()


def test_tables_go_into_files_and_pandas(report, tmp_path, monkeypatch):
    frame = report.table.to_pandas()
    assert list(frame.columns)[:6] == ["model", "sparsity", "strategy", "seed", "thresholds", "attribute"]
    assert len(frame) == len(report.table)
    text = report.table.to_csv(tmp_path / "t.csv")
    import pandas

    again = pandas.read_csv(tmp_path / "t.csv")
    np.testing.assert_allclose(again["value"], frame["value"])
    assert text.startswith("model,sparsity")
    parsed = json.loads(report.table.to_json(tmp_path / "t.json"))
    assert parsed["version"] == 1 and None in parsed["columns"]["value"] and "-inf" in parsed["columns"]["value"]
    assert json.loads((tmp_path / "t.json").read_text()) == parsed
    with pytest.raises(KeyError, match="column has value 'speed'"):
        report.table["speed"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsejax\[all\]'"):
        report.table.to_pandas()


def test_names_are_no_formulas_in_csv():
    z = np.array([[1.0, -1.0], [2.0, -2.0], [-1.0, 3.0]])
    audit = bias.compare(
        z, z, z > 0, {"@sum": ["=1+1", "x", "x"]}, attribute_names=["=HYPERLINK(1)", "b"], seeds=["-1"]
    )
    text = audit.table.to_csv()
    for cell in ("'=HYPERLINK(1)", "'@sum", "'=1+1"):
        assert f",{cell}," in text
    assert ",=" not in text and ",@" not in text
    assert ",-1," in text and "'-" not in text  # numbers stay numbers


def test_plots_return_axes(report):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = report.plot_overview()
    assert axes.shape == (2, 4) and axes[0, 0].get_title() == "accuracy"
    ax = report.plot_bias()
    assert ax.get_title() == "change of bias amplification, 99 %"
    assert report.plot_groups(metric="false_positive_rate").get_xlabel() == "false positive rate"
    legend = report.plot_groups().get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["dense", "99 %"]
    given = pyplot.subplots()[1]
    assert report.plot_reliability(given) is given
    with pytest.raises(ValueError, match="metric has value 'speed'"):
        report.plot_groups(metric="speed")
    pyplot.close("all")


Z = np.array([[1.0, -1.0], [2.0, -2.0], [-1.0, 3.0]])
T = np.array([[1, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": T[:2]}, r"labels has shape \(2, 2\); expected shape \(3, 2\)"),
        ({"labels": T * 2}, "labels has value 2; expected labels in"),
        ({"dense": Z * np.nan}, "dense has NaN at row 0"),
        ({"sparse": Z[:2]}, "2 samples and 2 attributes; expected 3 and 2, as dense"),
        ({"sparse": {0.9: Z, 1.5: Z}}, "sparsity 1.5; expected a fraction"),
        ({"sparse": {}}, "no model"),
        ({"sparse": np.stack([Z, Z]), "dense": np.stack([Z] * 3)}, "2 runs; expected 1 or 3, as dense"),
        ({"dense": T * 0.9, "sparse": T * 0.8}, "These look like probabilities: pass kind='probs'"),
        ({"kind": "probs"}, "dense has value .*; expected probabilities in"),
        ({"kind": "margin"}, "kind has value 'margin'"),
        ({"groups": [0, 1]}, "groups has 2 samples; expected 3, as labels"),
        ({"groups": {"a": [0, 1, 1], "b": [0, 1]}}, "2 samples in 'b'; expected 3, as 'a'"),
        ({"groups": [0, 1, 1], "group_names": ["a", "b"]}, "group_names has 2 different names; expected 1"),
        ({"train_groups": [0, 1]}, "train_labels has no value"),
        (
            {"train_labels": T, "train_groups": [0, 1, 1]},
            "groups has no value; expected groups, as train_groups need them",
        ),
        ({"groups": [0, 1, 1], "train_labels": T, "train_groups": [0, 1]}, "train_groups has 2 samples; expected 3"),
        ({"train_labels": T[:, :1]}, "train_labels has 1 columns; expected 2"),
        ({"val": {"dense": Z}}, "expected exactly dense, sparse and labels"),
        ({"val": {"dense": Z, "sparse": Z, "labels": T[:2]}}, "has 3 samples; expected 2, as val"),
        ({"sparse": {0.9: Z}, "val": {"dense": Z, "sparse": {0.8: Z}, "labels": T}}, "no entry 0.9"),
        ({"attribute_names": ["x", "x"]}, "attribute_names has 1 different names; expected 2"),
        ({"sample_ids": ["x"]}, "sample_ids has 1"),
        ({"images": np.zeros((3, 4))}, "images has shape"),
        ({"images": np.full((3, 2, 2), np.nan)}, "finite floats"),
        ({"clusters": [0, 1]}, "clusters has shape"),
        ({"threshold": "best"}, "threshold has value 'best'"),
        ({"threshold": "calibrated"}, "expected outputs and labels of a validation split"),
        ({"threshold": [0.0, 1.0, 2.0]}, "one number, or 2"),
        ({"uncertainty_band": 0.0}, "uncertainty_band has value 0.0"),
        ({"n_boot": -1}, "n_boot has value -1"),
        ({"seeds": ["a", "b"]}, "seeds has 2 different names; expected 1"),
    ],
)
def test_bad_input(change, words):
    arguments = {"dense": Z, "sparse": Z, "labels": T, **change}
    with pytest.raises(ValueError, match=words) as caught:
        bias.compare(**arguments)
    assert str(caught.value).startswith("compare: ")


def test_every_undefined_number_has_its_reason(report, inputs):
    hidden = inputs["labels"].astype(float)
    hidden[:, 0] = np.nan
    collapsed = {level: np.where(np.arange(4) < 3, z, -9.0) for level, z in inputs["sparse"].items()}
    odd = bias.compare(
        **inputs | {"labels": hidden, "dense": collapsed[0.5], "sparse": collapsed, "train_labels": hidden}
    )
    for audit in (report, odd):
        for view in (audit.table, audit.overall, audit.by_attribute, audit.by_group, audit.bias, audit.difference()):
            for row in view:
                assert np.isnan(row["value"]) == (row["reason"] != ""), row
        for view in (audit.flips, audit.susceptible()):
            for row in view:
                assert bool(row["reason"]) or not np.isnan(row["coverage"]), row
        assert {reason for reason in audit.table["reason"] if reason} <= set(bias.REASONS)
