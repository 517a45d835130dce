"""Bias amplification and its relatives, systematic bias, interdependence, risk."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.analysis import bias

SIDE = np.repeat([1, 0], 40)


def column(first, second):
    """Ones on the first ``first`` samples of side 1 and the first ``second`` of side 0, of 40 each."""
    values = np.zeros(80, int)
    values[:first] = values[40 : 40 + second] = 1
    return values


def amplify(t, yhat, side=SIDE, y_train=None, sensitive_train=None, **options):
    train = t if y_train is None else y_train
    groups = side if sensitive_train is None else sensitive_train
    return bias.bias_amplification(t, yhat, side, y_train=train, sensitive_train=groups, **options)


def test_bias_amplification_unit_vector():
    found = amplify(column(30, 12), column(33, 9))
    assert found.value[0, 0] == pytest.approx(33 / 42 - 30 / 42) == pytest.approx(0.0714286, abs=1e-7)
    assert found.reason[0, 0] == "" and found.favours_one[0, 0]
    # The favoured side is 0 where training says so, with the same predictions.
    other = amplify(column(30, 12), column(33, 9), y_train=column(12, 30))
    assert other.value[0, 0] == pytest.approx(9 / 42 - 12 / 42) and not other.favours_one[0, 0]


def test_bias_amplification_is_undefined_for_the_group_itself():
    assert amplify(SIDE, column(33, 9)).reason[0, 0] == "self"


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (column(20, 20), "weak_association"),  # no gap
        (column(21, 20), "weak_association"),  # 5 %
        (column(22, 20), ""),  # 10 %
        (column(0, 0), "weak_association"),  # 0 / 0
        (column(10, 0), ""),  # infinite relative gap is a direction
        (column(0, 10), ""),
    ],
)
def test_weak_associations_have_no_direction(train, reason):
    assert amplify(column(30, 12), column(33, 9), y_train=train).reason[0, 0] == reason


def test_minimum_counts_are_of_true_positives_on_both_sides():
    assert amplify(column(30, 9), column(33, 20)).reason[0, 0] == "too_few_positives"
    assert amplify(column(9, 30), column(20, 20)).reason[0, 0] == "too_few_positives"
    assert amplify(column(30, 10), column(33, 1)).reason[0, 0] == ""
    assert amplify(column(30, 9), column(33, 20), min_count=9).reason[0, 0] == ""


def test_a_collapsed_attribute_is_named():
    assert amplify(column(30, 12), column(0, 0)).reason[0, 0] == "no_predicted_positives"


def test_an_empty_group_is_named():
    ones = np.ones(80, int)
    assert amplify(column(30, 12), column(33, 9), ones, sensitive_train=SIDE).reason[0, 0] == "empty_group"
    assert amplify(column(30, 12), column(33, 9), SIDE, sensitive_train=ones).reason[0, 0] == "empty_group"


def test_many_attributes_and_groups_at_once():
    rng = np.random.default_rng(0)
    t = (rng.random((500, 4)) < 0.5).astype(int)
    groups = {"a": (rng.random(500) < 0.3 + 0.4 * t[:, 0]).astype(int), "b": rng.choice(["u", "v", "w"], 500)}
    yhat = np.where(rng.random(t.shape) < 0.2, 1 - t, t)
    found = amplify(t, yhat, groups, min_rel_gap=0.0)
    assert found.groups == ("a", "b=u", "b=v", "b=w") and found.value.shape == (4, 4)
    for index, side in enumerate([groups["a"], *(groups["b"] == level for level in "uvw")]):
        for a in range(4):
            alone = amplify(t[:, a], yhat[:, a], np.asarray(side, int), min_rel_gap=0.0)
            np.testing.assert_allclose(found.value[a, index], alone.value[0, 0])


def test_minus_one_labels_missing_labels_and_arrays_of_groups():
    t, yhat = column(30, 12), column(33, 9)
    plain = amplify(t, yhat).value
    np.testing.assert_array_equal(amplify(2 * t - 1, 2 * yhat - 1, 2 * SIDE - 1).value, plain)
    np.testing.assert_array_equal(amplify(t.astype(bool), yhat.astype(bool), SIDE[:, None].astype(bool)).value, plain)
    more = np.concatenate([t, [-1, -1]])
    side = np.concatenate([SIDE, [1, 0]])
    masked = bias.bias_amplification(
        more, np.concatenate([yhat, [1, 1]]), side, y_train=t, sensitive_train=SIDE, missing=-1
    )
    np.testing.assert_array_equal(masked.value, plain)


def test_common_cells_are_the_default_of_the_mean():
    good = amplify(np.stack([column(30, 12), column(30, 12)], 1), np.stack([column(33, 9), column(36, 6)], 1))
    lost = amplify(np.stack([column(30, 12), column(30, 12)], 1), np.stack([column(30, 12), column(0, 0)], 1))
    common = bias.mean_amplification([good, lost])
    np.testing.assert_allclose(common.overall, [3 / 42, 0.0])
    assert common.cells.tolist() == [1, 1] and common.lost.tolist() == [0, 1]
    each = bias.mean_amplification([good, lost], aggregate="nanmean")
    np.testing.assert_allclose(each.overall, [4.5 / 42, 0.0])
    assert each.cells.tolist() == [2, 1] and each.value.shape == (2, 1)
    with pytest.raises(ValueError, match="aggregate has value 'mean'"):
        bias.mean_amplification([good], aggregate="mean")
    with pytest.raises(ValueError, match="at least one run, all of one shape"):
        bias.mean_amplification([])


def test_marker_bias_amplification():
    t, yhat, marked = column(20, 20), column(30, 10), SIDE
    assert bias.marker_bias_amplification(t, yhat, marked).value[0] == pytest.approx(0.25)
    for changed, reason in (
        ((t, yhat, 0 * marked), "empty_group"),
        ((t, 0 * yhat, marked), "no_predicted_positives"),
        ((0 * t, yhat, marked), "too_few_positives"),
    ):
        found = bias.marker_bias_amplification(*changed)
        assert np.isnan(found.value[0]) and found.reason[0] == reason


def test_zhao_by_hand():
    """Two outputs, two groups: the loops of the published definition."""
    rng = np.random.default_rng(3)
    train, group = (rng.random((200, 3)) < 0.5).astype(int), rng.integers(0, 2, 200)
    train[:, 0] = np.where(group == 1, rng.random(200) < 0.8, rng.random(200) < 0.2)
    yhat, predicted = (rng.random((150, 3)) < 0.4).astype(int), rng.integers(0, 2, 150)
    total = 0.0
    for o in range(3):
        for g in range(2):
            before = (train[group == g, o].sum()) / train[:, o].sum()
            if before > 1 / 2:
                total += yhat[predicted == g, o].sum() / yhat[:, o].sum() - before
    found = bias.bias_amplification_zhao(yhat, predicted, y_train=train, sensitive_train=group)
    assert found.mean == pytest.approx(total / 3) and found.levels == ("0", "1")
    never = bias.bias_amplification_zhao(0 * yhat, predicted, y_train=train, sensitive_train=group)
    assert set(never.reason.ravel()) == {"weak_association", "no_predicted_positives"}


def test_directional_by_hand():
    rng = np.random.default_rng(4)
    group = {"a": rng.integers(0, 2, 300), "h": rng.choice(["p", "q", "r"], 300)}
    train = (rng.random((300, 3)) < 0.3 + 0.4 * group["a"][:, None]).astype(int)
    t, yhat = (rng.random((300, 3)) < 0.5).astype(int), (rng.random((300, 3)) < 0.5).astype(int)
    members = [group["a"] == 1, *(group["h"] == level for level in "pqr")]
    terms = []
    for k in range(3):
        for member in members:
            y = (train[member, k].sum() / 300) > member.mean() * train[:, k].mean()
            change = yhat[member, k].mean() - t[member, k].mean()
            terms.append(change if y else -change)
    mean, found = bias.bias_amplification_directional(t, yhat, group, y_train=train, sensitive_train=group)
    np.testing.assert_allclose(found.value.ravel(), terms)
    assert mean == pytest.approx(np.mean(terms))
    # Finite where every positive prediction is gone.
    assert np.isfinite(bias.bias_amplification_directional(t, 0 * t, group, y_train=train, sensitive_train=group)[0])
    alone = bias.bias_amplification_directional(t, yhat, np.zeros(300, int), y_train=train, sensitive_train=group["a"])
    assert np.isnan(alone[0]) and alone[1].reason[0, 0] == "empty_group"


def test_rare_value_ratio_unit_vector_and_edges():
    t, yhat = np.repeat([1, 0], [7, 3]), np.repeat([1, 0], [8, 2])
    assert bias.rare_value_ratio(t, yhat, y_train=t).value[0] == pytest.approx(2 / 3)
    assert bias.tcb(t, yhat, y_train=t).value[0] == pytest.approx(-0.585, abs=1e-3)
    # Rarer value 1: ratio of the positives; 0.5 counts as "1 is rarer".
    assert bias.rare_value_ratio(t, yhat, y_train=[0, 1]).value[0] == pytest.approx(8 / 7)
    assert bias.tcb(1 - t, 0 * t, y_train=1 - t).value[0] == -np.inf
    gone = bias.tcb(np.ones(4), np.ones(4), y_train=[1, 1, 1, 0])
    assert np.isnan(gone.value[0]) and gone.reason[0] == "absent_value"
    assert bias.rare_value_ratio([np.nan], [0], y_train=[0, 1]).reason[0] == "no_labels"


def test_interdependence_agrees_with_scikit_learn():
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    hard = (z > 0).astype(float)
    hard[:, 5] = 1.0
    z[:, 5] = 2.0
    for on, x in (("hard", hard), ("logit", z), ("prob", 1 / (1 + np.exp(-z)))):
        legacy = bias.interdependence(z, on=on, legacy=True)
        for a in range(6):
            others = np.delete(x, a, axis=1)
            expected = LinearRegression().fit(others, x[:, a]).score(others, x[:, a])
            assert legacy.value[a] == pytest.approx(expected, abs=1e-10)
        ours = bias.interdependence(z, on=on)
        assert np.isnan(ours.value[5]) and ours.reason[5] == "constant" and legacy.value[5] == 1.0
        np.testing.assert_array_equal(ours.value[:5], legacy.value[:5])


def test_interdependence_edges():
    x = np.random.default_rng(0).normal(size=(50, 3))
    dependent = bias.interdependence(np.column_stack([x, x[:, 0] + x[:, 1], x[:, 2]]), on="values")
    np.testing.assert_allclose(dependent.value, 1.0)
    assert bias.interdependence(x[:, :1]).reason.tolist() == ["too_few_samples"]
    assert set(bias.interdependence(x[:3]).reason) == {"too_few_samples"}
    assert bias.interdependence(x[:4], on="logit").reason.tolist() == [""] * 3
    expected = np.abs(np.corrcoef(x.T)[np.triu_indices(3, 1)]).mean()
    assert bias.mean_absolute_correlation(x) == pytest.approx(expected)
    assert np.isnan(bias.mean_absolute_correlation(np.ones((4, 2))))


def test_bias_risk_components():
    side = np.repeat([1, 0], 10)
    train = np.zeros((20, 2), int)
    train[:6, 0] = train[10:13, 0] = 1  # rates .6 and .3: gap 1, positives rarer
    train[:9, 1] = train[10:16, 1] = 1  # rates .9 and .6: gap .5, negatives rarer
    t = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])
    p = np.array([[0.5, 0.5], [0.95, 0.5], [0.5, 0.05], [0.5, 0.5]])
    found = bias.bias_risk(p, t, train, side)
    np.testing.assert_allclose(found.relative_gap[:, 0], [1.0, 0.5])
    np.testing.assert_allclose(found.uncertainty_rare, [0.5, 0.5])
    np.testing.assert_allclose(found.rare_rate, [0.45, 0.25])
    np.testing.assert_allclose(found.uncertainty, [0.75, 0.75])
    np.testing.assert_allclose(found.risk[:, 0], [0.5, 0.25])
    absent = bias.bias_risk(p, np.ones_like(t), train, side)
    assert absent.reason[1, 0] == "absent_value" and absent.reason[0, 0] == ""
    logits = np.log(p / (1 - p))
    np.testing.assert_allclose(bias.bias_risk(logits, t, train, side, kind="logits").risk, found.risk)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: amplify([0, 1], [0, 1], [0, 1, 1], sensitive_train=[0, 1]), "3 samples; expected 2, as y_true"),
        (lambda: amplify([0, 1], [0, 1], [0, 1], y_train=[0, 1, 1]), "sensitive_train has 2 samples; expected 3"),
        (lambda: amplify([0, 1], [0, 1], [0, 1], y_train=[[0, 1]] * 2), "2 columns; expected 1, as y_true"),
        (
            lambda: amplify([0, 1], [0, 1], {"a": [0, 1]}, sensitive_train={"b": [0, 1]}),
            "'b'.* expected .*'a'",
        ),
        (lambda: amplify([0, 3], [0, 1], [0, 1]), "y_true has value 3"),
        (lambda: bias.interdependence([[0.0, 1.0]], on="rank"), "on has value 'rank'"),
        (lambda: bias.bias_risk([2.0], [1], [1], [1]), "Are these logits"),
        (lambda: bias.bias_risk([0.2], [1], [1], [1], kind="logit"), "kind has value 'logit'"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
