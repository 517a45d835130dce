"""Flips, overrides, populations of models, adapters."""

from __future__ import annotations

import numpy as np
import pytest

from sparsejax.analysis import bias


def test_kinds_of_flips():
    dense, sparse = np.array([1, 1, 0, 0, 1]), np.array([0, 1, 1, 0, 0])
    found = bias.flips(dense, sparse, y_true=[1, 1, 1, 0, np.nan], y_train=[0, 0, 1])
    assert found.flip[:, 0].tolist() == [True, False, True, False, True]
    assert found.right_to_wrong[:, 0].tolist() == [True, False, False, False, False]
    assert found.wrong_to_right[:, 0].tolist() == [False, False, True, False, False]
    assert found.to_common[:, 0].tolist() == [True, False, False, False, True]
    assert found.from_common[:, 0].tolist() == [False, False, True, False, False]
    bare = bias.flips(dense, sparse)
    assert bare.right_to_wrong is None and bare.to_common is None


def test_flip_coverage():
    flip, mask = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 0, 0, 0])
    score = np.array([0.9, 0.8, 0.1, 0.7, 0.6, 0.0, 0.2, 0.3])
    found = bias.flip_coverage(flip, mask, score)
    assert found.flip_rate == 0.375 and found.uncertain_share == 0.5
    assert found.coverage == pytest.approx(2 / 3)
    assert found.flip_rate_inside == 0.5 and found.flip_rate_outside == 0.25
    from sklearn.metrics import roc_auc_score

    assert found.auc == pytest.approx(roc_auc_score(flip, score))
    none = bias.flip_coverage(0 * flip, mask)
    assert none.flip_rate == 0 and np.isnan(none.coverage) and np.isnan(none.auc)


def test_override_sources():
    sparse, mask, dense = np.array([1, 0, 1]), np.array([1, 1, 0]), np.array([0, 0, 0])
    assert bias.override_predictions(sparse, mask, source="dense", dense_pred=dense).y_pred[:, 0].tolist() == [0, 0, 1]
    labelled = bias.override_predictions(sparse, mask, source="label", y_true=[0.0, 1.0, np.nan])
    assert labelled.y_pred[:, 0].tolist() == [0, 1, 1] and labelled.share == pytest.approx(2 / 3)
    assert bias.override_predictions(sparse, mask, source="abstain").y_pred[:, 0].tolist() == [-1, -1, 1]
    for source, words in (("dense", "dense_pred has no value"), ("label", "y_true has no value"), ("x", "source has")):
        with pytest.raises(ValueError, match=words):
            bias.override_predictions(sparse, mask, source=source)
    with pytest.raises(ValueError, match="missing labels under the mask"):
        bias.override_predictions(sparse, mask, source="label", y_true=[np.nan, 1, 1])
    with pytest.raises(ValueError, match=r"replacement has shape \(2, 1\)"):
        bias.override_predictions(sparse, mask, source="dense", dense_pred=[0, 1])


def test_modal_labels_agree_with_scipy():
    from scipy.stats import mode

    votes = np.random.default_rng(0).integers(0, 4, (9, 200))
    counts = np.sort(np.stack([(votes == c).sum(0) for c in range(4)]), axis=0)
    clear = counts[-1] > counts[-2]
    np.testing.assert_array_equal(bias.modal_labels(votes)[clear], mode(votes, axis=0).mode[clear])
    assert (bias.modal_labels(votes, tie="drop") == -1).tolist() == (~clear).tolist()
    assert bias.modal_labels([[0, 3], [2, 1]]).tolist() == [2, 3]
    binary = np.array([[[1, 0]], [[0, 0]]])
    assert bias.modal_labels(binary).tolist() == [[1, 0]] and bias.modal_labels(binary, tie="drop").tolist() == [
        [-1, 0]
    ]


def test_pie_and_taxicab():
    dense, sparse = np.array([[0, 1], [0, 1], [0, 0]]), np.array([[1, 1], [1, 0], [0, 1]])
    assert bias.pie(dense, sparse).tolist() == [True, False]
    tied = np.array([[1, 1], [0, 1]])
    assert bias.pie(dense, tied).tolist() == [True, False]
    assert bias.pie(dense, tied, tie="drop").tolist() == [False, False]
    found = bias.cie_taxicab(dense, sparse, percentile=50)
    shares = [values.mean(axis=0) for values in (dense, sparse)]
    np.testing.assert_allclose(found.score, 2 * np.abs(shares[1] - shares[0]))
    assert found.selected.tolist() == [True, False]
    classes = bias.cie_taxicab(np.array([[0, 2]]), np.array([[2, 2]]))
    assert classes.score.tolist() == [2.0, 0.0]


def test_class_recall_shift_agrees_with_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    t = rng.integers(0, 4, 200)
    dense = np.where(rng.random((30, 200)) < 0.1, rng.integers(0, 4, (30, 200)), t)
    sparse = np.where(rng.random((25, 200)) < 0.1 + 0.3 * (t == 2), rng.integers(0, 4, (25, 200)), t)
    found = bias.class_recall_shift(t, dense, sparse)
    normalised = [
        np.stack([(y[:, t == c] == c).mean(axis=1) for c in range(4)]) - (y == t).mean() for y in (dense, sparse)
    ]
    expected = stats.ttest_ind(normalised[1], normalised[0], axis=1, equal_var=False)
    np.testing.assert_allclose(found.p_value, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.shift, normalised[1].mean(1) - normalised[0].mean(1))
    np.testing.assert_allclose(found.q_value, stats.false_discovery_control(expected.pvalue))
    assert found.shift.argmin() == 2 and found.q_value[2] < 1e-6
    absent = bias.class_recall_shift(2 * t, 2 * dense, 2 * sparse)
    assert np.isnan(absent.p_value[1]) and np.isnan(absent.q_value[1])


def test_one_vs_rest_predicts_what_argmax_predicts():
    z = np.random.default_rng(0).normal(size=(50, 4))
    t = np.random.default_rng(1).integers(0, 4, 50)
    found = bias.one_vs_rest(z, t)
    np.testing.assert_array_equal(bias.hard_predictions(found.logits).argmax(axis=1), z.argmax(axis=1))
    assert (bias.hard_predictions(found.logits).sum(axis=1) == 1).all()
    np.testing.assert_array_equal(found.labels.argmax(axis=1), t)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bias.flips([0, 1], [0]), r"sparse_pred has shape \(1, 1\); expected \(2, 1\), as dense_pred"),
        (lambda: bias.modal_labels([0, 1]), r"shape \(2,\); expected \(R, n\)"),
        (lambda: bias.modal_labels([[0.5]]), "whole numbers from 0"),
        (lambda: bias.pie([[0, 1]], [[0]]), r"sparse_pred has shape \(1, 1\)"),
        (lambda: bias.cie_taxicab([[0]], [[0]], percentile=101), "percentile has value 101"),
        (lambda: bias.class_recall_shift([0, 1], [[0, 1]], [[0, 1], [0, 1]]), "R at least 2"),
        (lambda: bias.one_vs_rest([[1.0, 2.0]], [2]), r"expected 1 classes in \[0, 2\)"),
        (lambda: bias.one_vs_rest([1.0], [0]), "C at least 2"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
