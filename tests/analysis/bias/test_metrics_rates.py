"""Decisions, thresholds, rates, calibration and uncertainty: unit vectors, edge cases, scikit-learn and fairlearn."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.analysis import bias


@pytest.fixture(scope="module")
def drawn():
    """Labels, logits (with ties) and a group of three levels."""
    rng = np.random.default_rng(0)
    t = (rng.random((400, 5)) < [0.5, 0.3, 0.7, 0.1, 0.5]).astype(int)
    z = np.round(2 * (t - 0.4) + rng.normal(0, 1.5, t.shape), 1)
    return t, z, rng.choice(["x", "y", "z"], 400)


def test_hard_predictions_are_strict_and_keep_the_shape():
    assert bias.hard_predictions([-1.0, 0.0, 1e-300]).tolist() == [0, 0, 1]
    z = np.array([[0.2, 0.9], [0.5, 0.4]])
    assert bias.hard_predictions(z, 0.5).tolist() == [[0, 1], [0, 0]]
    assert bias.hard_predictions(z, [0.4, np.inf]).tolist() == [[0, 0], [1, 0]]
    assert bias.hard_predictions(z, [-np.inf, 0.4]).tolist() == [[1, 1], [1, 0]]
    assert bias.hard_predictions(np.array([1, 0], bool)).dtype == np.int8


def test_calibrated_threshold_unit_vector():
    z, t = [3.0, 2.0, 1.0, 0.0, -1.0], [1, 0, 1, 0, 0]
    assert bias.calibrate_thresholds(z, t) == 1.5
    assert bias.calibrate_thresholds(z, t, rule="legacy") == 2.0
    assert bias.hard_predictions(z, 1.5).sum() == 2 and bias.hard_predictions(z, 2.0).sum() == 1


def test_calibrated_threshold_edges():
    z = np.array([3.0, 2.0, 1.0])
    assert bias.calibrate_thresholds(z, [0, 0, 0]) == np.inf
    assert bias.calibrate_thresholds(z, [1, 1, 1]) == -np.inf
    with pytest.raises(ValueError, match="column 0, has no positive; expected at least one for rule 'legacy'"):
        bias.calibrate_thresholds(z, [0, 0, 0], rule="legacy")
    # Ties straddle the cut: the larger value, hence at most k positives.
    assert bias.calibrate_thresholds([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0]) == 2.0
    close = np.array([np.nextafter(1.0, 2.0), 1.0])
    assert bias.hard_predictions(close, bias.calibrate_thresholds(close, [1, 0])).tolist() == [1, 0]
    missing = bias.calibrate_thresholds([9.0, 3.0, 2.0, 1.0], [-1, 1, 0, 0], missing=-1)
    assert missing == 2.5
    with pytest.raises(ValueError, match="no label"):
        bias.calibrate_thresholds([1.0], [np.nan])


def test_calibrated_thresholds_fit_the_rate(drawn):
    t, _, _ = drawn
    z = np.random.default_rng(1).normal(size=t.shape)  # no ties
    theta = bias.calibrate_thresholds(z, t)
    assert theta.shape == (5,)
    np.testing.assert_array_equal(bias.hard_predictions(z, theta).sum(axis=0), t.sum(axis=0))
    legacy = bias.hard_predictions(z, bias.calibrate_thresholds(z, t, rule="legacy"))
    np.testing.assert_array_equal(legacy.sum(axis=0), t.sum(axis=0) - 1)


def test_uncertainty_is_strict_and_computed_on_logits():
    edge = np.log(9.0)
    assert edge == pytest.approx(2.1972246, abs=1e-7)
    assert bias.uncertainty([edge, np.nextafter(edge, 0), -edge, 0.0]).tolist() == [0.5]
    assert bias.uncertainty([0.4054, 0.4055, -3.0, 3.0], band=0.1).tolist() == [0.25]
    assert bias.uncertainty([0.11, 0.5, 0.95, 0.05], kind="probs").tolist() == [0.5]
    assert bias.uncertainty([1000.0], band=0.5).tolist() == [1.0]
    np.testing.assert_allclose(bias.uncertainty_score([0.0, np.log(3.0), -800.0]), [1.0, 0.5, 0.0], atol=1e-15)
    for band in (0.0, 0.6, float("nan")):
        with pytest.raises(ValueError, match="band has value"):
            bias.uncertainty([0.0], band=band)


def test_susceptible_samples():
    found = bias.susceptible_samples(np.array([[0.0, 4.0], [-1.0, -4.0]]))
    assert found.mask.tolist() == [[True, False], [True, False]] and found.share == 0.5
    assert found.score[0, 0] == 1 and (found.score[:, 1] < 0.05).all()


def test_rates_agree_with_scikit_learn_and_fairlearn(drawn):
    from fairlearn import metrics as fair
    from sklearn import metrics

    t, z, _ = drawn
    yhat = bias.hard_predictions(z)
    for a in range(5):
        one, decided = t[:, a], yhat[:, a]
        assert bias.accuracy(one, decided) == pytest.approx(metrics.accuracy_score(one, decided), abs=1e-15)
        assert bias.false_positive_rate(one, decided) == pytest.approx(fair.false_positive_rate(one, decided))
        assert bias.false_negative_rate(one, decided) == pytest.approx(fair.false_negative_rate(one, decided))
        assert bias.predicted_positive_rate(one, decided) == pytest.approx(fair.selection_rate(one, decided))
    np.testing.assert_allclose(
        bias.auc(t, z).value, [metrics.roc_auc_score(t[:, a], z[:, a]) for a in range(5)], atol=1e-12
    )
    assert bias.accuracy(t, yhat).shape == (5,)


def test_auc_of_one_class_is_nan_with_a_reason():
    found = bias.auc(np.array([[1, 0], [1, 1]]), np.array([[0.1, 0.3], [0.2, 0.7]]))
    assert np.isnan(found.value[0]) and found.reason.tolist() == ["one_class", ""] and found.value[1] == 1
    assert bias.auc([0, 1], [0.5, 0.5]).value.tolist() == [0.5]


def test_precision_at_recall_agrees_with_the_curve(drawn):
    from sklearn.metrics import precision_recall_curve

    t, z, _ = drawn
    precision, recall, _ = precision_recall_curve(t[:, 0], z[:, 0])
    for asked in (0.5, 0.75, 0.9, 0.95):
        distance = np.abs(recall - asked)
        expected = precision[distance == distance.min()].max()
        assert bias.precision_at_recall(t[:, 0], z[:, 0], asked) == pytest.approx(expected)
    assert np.isnan(bias.precision_at_recall([1, 0], [1.0, 1.0], 0.5))
    assert np.isnan(bias.precision_at_recall([0, 0], [1.0, 0.5], 0.5))


def test_group_rates_agree_with_a_metric_frame(drawn):
    from fairlearn.metrics import MetricFrame

    t, z, group = drawn
    yhat = bias.hard_predictions(z)
    names = ("accuracy", "predicted_positive_rate", "false_positive_rate", "false_negative_rate")
    rates = bias.group_rates(t, yhat, group, min_count=1)
    assert rates.levels == ("x", "y", "z")
    for a in range(5):
        frame = MetricFrame(
            metrics={name: getattr(bias, name) for name in names},
            y_true=t[:, a],
            y_pred=yhat[:, a],
            sensitive_features=group,
        )
        for name in names:
            np.testing.assert_allclose(rates.by_group[name].value[:, a], frame.by_group[name].to_numpy(), atol=1e-14)
            assert rates.overall[name][a] == pytest.approx(frame.overall[name])
            assert rates.group_min()[name][a] == pytest.approx(frame.group_min()[name])
            assert rates.group_max()[name][a] == pytest.approx(frame.group_max()[name])
            for method in ("between_groups", "to_overall"):
                assert rates.difference(method)[name][a] == pytest.approx(frame.difference(method=method)[name])
                assert rates.ratio(method)[name][a] == pytest.approx(frame.ratio(method=method)[name])


def test_group_rates_say_why_they_are_undefined():
    t, yhat = np.array([1] * 12 + [0] * 12), np.array([1, 0] * 12)
    side = np.array([1] * 12 + [0] * 12)
    rates = bias.group_rates(t, yhat, side, uncertain=yhat)
    assert rates.by_group["false_positive_rate"].reason[:, 0].tolist() == ["", "too_few_negatives"]
    assert rates.by_group["false_negative_rate"].reason[:, 0].tolist() == ["too_few_positives", ""]
    assert rates.by_group["uncertainty"].value[:, 0].tolist() == [0.5, 0.5]
    assert rates.counts.total[:, 0].tolist() == [12, 12]
    empty = bias.group_rates(t, yhat, np.ones(24, int))
    assert empty.levels == ("0", "1")
    assert {found.reason[0, 0] for found in empty.by_group.values()} == {"empty_group"}
    assert bias.rate_gaps(t, yhat, np.ones(24, int))["accuracy"].reason[0] == "empty_group"


def test_rate_gaps_are_signed(drawn):
    t, z, _ = drawn
    side = np.arange(400) % 2
    yhat = bias.hard_predictions(z)
    gaps = bias.rate_gaps(t, yhat, side)
    one, zero = side == 1, side == 0
    for name in ("accuracy", "false_positive_rate", "false_negative_rate"):
        measure = getattr(bias, name)
        np.testing.assert_allclose(gaps[name].value, measure(t[one], yhat[one]) - measure(t[zero], yhat[zero]))
    with pytest.raises(ValueError, match="3 levels; expected two"):
        bias.rate_gaps(t, yhat, drawn[2])


def test_calibration_error_unit_vector():
    p, t = [0.05, 0.15, 0.95, 1.0], [0, 1, 1, 0]
    assert bias.expected_calibration_error(t, p)[0] == pytest.approx(0.4625)
    assert bias.expected_calibration_error(t, p, legacy=True)[0] == pytest.approx(0.4875)
    assert bias.reliability_table(t, p, legacy=True).count[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    table = bias.reliability_table(t, p)
    assert np.isnan(table.mean_prob[5, 0]) and table.mean_label[9, 0] == 0.5


def test_reliability_agrees_with_scikit_learn(drawn):
    from sklearn.calibration import calibration_curve

    t, z, _ = drawn
    p = 1 / (1 + np.exp(-z - 0.013))  # no probability on an edge, where conventions differ
    table = bias.reliability_table(t, p)
    for a in range(5):
        label, prob = calibration_curve(t[:, a], p[:, a], n_bins=10)
        filled = table.count[:, a] > 0
        np.testing.assert_allclose(table.mean_label[filled, a], label)
        np.testing.assert_allclose(table.mean_prob[filled, a], prob)
        error = np.average(np.abs(label - prob), weights=table.count[filled, a])
        assert bias.expected_calibration_error(t, p)[a] == pytest.approx(error)


@pytest.mark.parametrize("name", ["accuracy", "false_positive_rate"])
def test_missing_labels_are_left_out(name):
    t = np.array([[1.0, np.nan], [0.0, 0.0], [0.0, 1.0]])
    yhat = np.array([[1, 1], [1, 1], [0, 1]])
    value = getattr(bias, name)(t, yhat)
    kept = getattr(bias, name)(t[1:, 1], yhat[1:, 1])
    assert value[1] == kept and value[0] == getattr(bias, name)(t[:, 0], yhat[:, 0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: bias.accuracy([0, 1], [0, 1, 1]),
            r"accuracy: y_pred has shape \(3, 1\); expected \(2, 1\), as y_true",
        ),
        (lambda: bias.accuracy([0, 2], [0, 1]), r"y_true has value 2; expected labels in \{0, 1\} or \{-1, 1\}"),
        (lambda: bias.accuracy([0, -1], [0, 1]), "Pass missing=-1"),
        (
            lambda: bias.accuracy([0, 1], [0.0, np.nan]),
            "y_pred has a missing value at row 1, column 0; expected hard predictions",
        ),
        (lambda: bias.accuracy([], []), "nothing empty"),
        (lambda: bias.accuracy(["a"], [1]), "expected numbers or booleans"),
        (lambda: bias.uncertainty([[0.0, np.nan]]), "NaN at row 0, column 1; expected no NaN"),
        (lambda: bias.hard_predictions([0.0], [0.0, 1.0]), r"thresholds has shape \(2,\)"),
        (lambda: bias.hard_predictions([0.0], np.nan), "thresholds has NaN"),
        (lambda: bias.reliability_table([0, 1], [0.0, 1.2]), "value 1.2; expected probabilities"),
        (lambda: bias.reliability_table([0, 1], [0.0, 1.0], n_bins=0), "n_bins has value 0"),
        (lambda: bias.calibrate_thresholds([0.0], [1], rule="best"), "rule has value 'best'"),
        (lambda: bias.group_rates([0, 1], [0, 1], {"a": [0, 1], "b": [0, 1]}), "2 attributes; expected one"),
        (
            lambda: bias.group_rates([0, 1], [0, 1], [0, 1, 1]),
            "sensitive_features has 3 samples; expected 2, as y_true",
        ),
        (lambda: bias.group_rates([0, 1], [0, 1], [0.5, 1]), "fraction 0.5 at row 0"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
