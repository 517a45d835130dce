"""Every public function with every kind of array that pandas, NumPy and JAX users pass, and with missing entries."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from sparsejax.analysis import bias

RNG = np.random.default_rng(0)
N = 240
T = RNG.integers(0, 2, N)
Z = np.round(4.0 * T - 2 + RNG.normal(size=N), 3).astype(np.float32).astype(float)
W = np.round(Z + RNG.normal(size=N), 3).astype(np.float32).astype(float)
Y, V = (Z > 0).astype(int), (W > 0).astype(int)
G = (RNG.random(N) < 0.3 + 0.4 * T).astype(int)
P = np.round(1 / (1 + np.exp(-Z)), 3).astype(np.float32).astype(float)
R = np.stack([Y, V, T])
CLASSES = RNG.integers(0, 3, N)

# name of the function -> call; arrays are turned into the kind of array by the argument.
CALLS = {
    "accuracy": lambda a: bias.accuracy(a(T), a(Y)),
    "false_negative_rate": lambda a: bias.false_negative_rate(a(T), a(Y)),
    "false_positive_rate": lambda a: bias.false_positive_rate(a(T), a(Y)),
    "predicted_positive_rate": lambda a: bias.predicted_positive_rate(a(T), a(Y)),
    "auc": lambda a: bias.auc(a(T), a(Z)).value,
    "precision_at_recall": lambda a: bias.precision_at_recall(a(T), a(Z), np.float32(0.5)),
    "group_rates": lambda a: bias.group_rates(a(T), a(Y), a(G), uncertain=a(V)).by_group["accuracy"].value,
    "rate_gaps": lambda a: bias.rate_gaps(a(T), a(Y), a(G), min_count=jnp.int32(5))["accuracy"].value,
    "bias_amplification": lambda a: (
        bias.bias_amplification(a(T), a(Y), a(G), y_train=a(T), sensitive_train=a(G), min_rel_gap=np.float32(0.1)).value
    ),
    "bias_amplification_zhao": lambda a: (
        bias.bias_amplification_zhao(a(Y), a(G), y_train=a(T), sensitive_train=a(G)).value
    ),
    "bias_amplification_directional": lambda a: (
        bias.bias_amplification_directional(a(T), a(Y), a(G), y_train=a(T), sensitive_train=a(G))[1].value
    ),
    "marker_bias_amplification": lambda a: bias.marker_bias_amplification(a(T), a(Y), a(G)).value,
    "rare_value_ratio": lambda a: bias.rare_value_ratio(a(T), a(Y), y_train=a(T)).value,
    "tcb": lambda a: bias.tcb(a(T), a(Y), y_train=a(T)).value,
    "interdependence": lambda a: bias.interdependence(np.column_stack([np.asarray(a(Z)), W]), on="prob").value,
    "mean_absolute_correlation": lambda a: bias.mean_absolute_correlation(np.column_stack([np.asarray(a(Z)), W])),
    "flips": lambda a: bias.flips(a(Y), a(V), y_true=a(T), y_train=a(T)).to_common,
    "flip_coverage": lambda a: bias.flip_coverage(a(Y != V), a(V), a(Z)),
    "hard_predictions": lambda a: bias.hard_predictions(a(Z), jnp.float32(0.5)),
    "calibrate_thresholds": lambda a: bias.calibrate_thresholds(a(Z), a(T)),
    "uncertainty": lambda a: bias.uncertainty(a(Z), band=np.float32(0.4)),
    "uncertainty_score": lambda a: bias.uncertainty_score(a(Z)),
    "susceptible_samples": lambda a: bias.susceptible_samples(a(Z)).score,
    "override_predictions": lambda a: (
        bias.override_predictions(a(V), a(Y), source="label", dense_pred=a(Y), y_true=a(T)).y_pred
    ),
    "reliability_table": lambda a: bias.reliability_table(a(T), a(P), n_bins=np.int64(5)).mean_label,
    "expected_calibration_error": lambda a: bias.expected_calibration_error(a(T), a(P)),
    "bias_risk": lambda a: bias.bias_risk(a(P), a(T), a(T), a(G)).risk,
    "one_vs_rest": lambda a: bias.one_vs_rest(np.column_stack([Z, W, Z + W]), a(CLASSES)).labels,
    "modal_labels": lambda a: bias.modal_labels([a(y) for y in R]),
    "pie": lambda a: bias.pie([a(y) for y in R], [a(y) for y in R[::-1]]),
    "cie_taxicab": lambda a: bias.cie_taxicab([a(y) for y in R], [a(y) for y in R[:1]], percentile=jnp.int32(90)).score,
    "class_recall_shift": lambda a: bias.class_recall_shift(a(T), [a(Y), a(V)], [a(T), a(V)]).shift,
    "compare": lambda a: bias.compare(
        a(Z), {np.float32(0.5): a(W)}, a(T), a(G), train_labels=a(T), train_groups=a(G), clusters=a(CLASSES), n_boot=2
    ).table["value"],
    "compare, by names": lambda a: bias.compare(
        a(Z), a(W), a(T), {"side": a(G)}, threshold=jnp.float32(0.1), sparsity=jnp.float32(0.5)
    ).table["value"],
}
KINDS = {
    "list": lambda x: x.tolist(),
    "list of JAX scalars": lambda x: list(jnp.asarray(x)) if len(x) < 300 else x,
    "objects": lambda x: x.astype(object),
    "masked": np.ma.array,
    "JAX": jnp.asarray,
    "Series": lambda x: pd.Series(x, index=np.arange(len(x))[::-1], name="x"),
    "nullable": lambda x: pd.Series(pd.array(x.tolist())),
    "categorical": lambda x: pd.Series(x).astype("category"),
}


def test_every_public_function_that_takes_arrays_is_here():
    measures = {name for name in bias.__all__ if name[0].islower()}
    without_arrays = {"mean_amplification", "to_aif360_groups"}
    assert measures - without_arrays == {name.partition(",")[0] for name in CALLS}


@pytest.fixture(scope="module")
def expected():
    return {name: call(np.asarray) for name, call in CALLS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_result_as_for_the_numpy_array(kind, expected):
    for name, call in CALLS.items():
        if kind == "list of JAX scalars" and name.startswith("compare"):
            continue  # slow, and the same readers
        np.testing.assert_allclose(call(KINDS[kind]), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def put(missing):
    """Return a function that makes the third entry of an array missing."""

    def change(x):
        values = x.astype(object)
        values[2] = missing
        return values

    return change


# Arguments in which a missing label is documented to be left out, and the measure without that sample.
LEAVES_OUT = {
    "accuracy": lambda t, y, z, g: bias.accuracy(t, y),
    "auc": lambda t, y, z, g: bias.auc(t, z).value,
    "group_rates": lambda t, y, z, g: bias.group_rates(t, y, g).by_group["accuracy"].value,
    "bias_amplification": lambda t, y, z, g: bias.bias_amplification(t, y, g, y_train=t, sensitive_train=g).value,
    "calibrate_thresholds": lambda t, y, z, g: bias.calibrate_thresholds(z, t),
    "rare_value_ratio": lambda t, y, z, g: bias.rare_value_ratio(t, y, y_train=t).value,
    "compare": lambda t, y, z, g: bias.compare(z, z + 1, t, g).overall.where(metric="accuracy")["value"],
}


@pytest.mark.parametrize("missing", [float("nan"), None, pd.NA, np.ma.masked], ids=["NaN", "None", "NA", "masked"])
@pytest.mark.parametrize("name", LEAVES_OUT)
def test_a_missing_label_is_left_out(name, missing):
    labels = np.ma.array(T, mask=np.arange(N) == 2) if missing is np.ma.masked else put(missing)(T)
    kept = np.arange(N) != 2
    np.testing.assert_allclose(
        LEAVES_OUT[name](labels, Y, Z, G), LEAVES_OUT[name](T[kept], Y[kept], Z[kept], G[kept]), err_msg=name
    )


@pytest.mark.parametrize("missing", [float("nan"), None, pd.NA], ids=["NaN", "None", "NA"])
@pytest.mark.parametrize(
    "call",
    [
        lambda a: bias.accuracy(T, a(Y)),
        lambda a: bias.auc(T, a(Z)),
        lambda a: bias.group_rates(T, Y, a(G)),
        lambda a: bias.group_rates(T, Y, G, uncertain=a(V)),
        lambda a: bias.rate_gaps(T, Y, a(np.where(G, "F", "M"))),
        lambda a: bias.bias_amplification(T, Y, {"sex": a(G)}, y_train=T, sensitive_train={"sex": G}),
        lambda a: bias.bias_amplification(T, Y, G, y_train=T, sensitive_train=a(G)),
        lambda a: bias.bias_amplification_zhao(Y, a(G), y_train=T, sensitive_train=G),
        lambda a: bias.bias_amplification_directional(T, Y, a(G), y_train=T, sensitive_train=G),
        lambda a: bias.marker_bias_amplification(T, Y, a(G)),
        lambda a: bias.bias_risk(P, T, T, a(G)),
        lambda a: bias.flips(a(Y), V),
        lambda a: bias.flip_coverage(Y, a(V)),
        lambda a: bias.override_predictions(V, a(Y), source="abstain"),
        lambda a: bias.hard_predictions(a(Z)),
        lambda a: bias.uncertainty(a(P), kind="probs"),
        lambda a: bias.susceptible_samples(a(Z)),
        lambda a: bias.expected_calibration_error(T, a(P)),
        lambda a: bias.interdependence(np.column_stack([a(Z), W])),
        lambda a: bias.one_vs_rest(np.column_stack([Z, W, W]), a(CLASSES)),
        lambda a: bias.class_recall_shift(a(T), R, R),
        lambda a: bias.modal_labels([a(Y), V]),
        lambda a: bias.pie(R, [V, a(Y)][::-1]),
        lambda a: bias.compare(a(Z), W, T),
        lambda a: bias.compare(Z, W, T, a(G)),
        lambda a: bias.compare(Z, W, T, pd.DataFrame({"sex": a(np.where(G, "F", "M"))})),
        lambda a: bias.compare(Z, W, T, G, train_labels=T, train_groups=a(G)),
        lambda a: bias.compare(Z, W, T, clusters=a(CLASSES)),
        lambda a: bias.compare(Z, W, T, sample_ids=a(np.arange(N))),
    ],
)
def test_elsewhere_a_missing_entry_is_an_error_that_names_the_row(call, missing):
    with pytest.raises(ValueError, match=r"row [02]\b"):
        call(put(missing))


@pytest.mark.parametrize("wrong", [float("nan"), None, pd.NA, "much"], ids=["NaN", "None", "NA", "text"])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: bias.uncertainty(Z, band=x),
        lambda x: bias.precision_at_recall(T, Z, x),
        lambda x: bias.precision_at_recall(T, Z, 0.5, tolerance=x),
        lambda x: bias.group_rates(T, Y, G, min_count=x),
        lambda x: bias.bias_amplification(T, Y, G, y_train=T, sensitive_train=G, min_rel_gap=x),
        lambda x: bias.cie_taxicab(R, R, percentile=x),
        lambda x: bias.reliability_table(T, P, n_bins=x),
        lambda x: bias.hard_predictions(Z, x),
        lambda x: bias.compare(Z, {x: W} if x is not None else {"": W}, T),
        lambda x: bias.compare(Z, W, T, uncertainty_band=x),
        lambda x: bias.compare(Z, W, T, n_boot=x),
        lambda x: bias.compare(Z, W, T, threshold=x),
        lambda x: bias.compare(Z, W, T).assert_no_regression(max_flip_rate=x),
    ],
)
def test_a_number_that_is_missing_is_an_error(call, wrong):
    with pytest.raises(ValueError, match=r"has (value|sparsity|NaN|dtype|no value)"):
        call(wrong)


def test_undefined_is_nan_with_its_reason():
    nothing = np.full(N, np.nan)
    ratio = bias.rare_value_ratio(T, Y, y_train=nothing)
    assert np.isnan(ratio.value[0]) and ratio.reason[0] == "no_labels"
    assert not bias.flips(Y, V, y_train=nothing).to_common.any()
    risk = bias.bias_risk(P, T, nothing, G)
    assert np.isnan(risk.risk[0, 0]) and risk.reason[0, 0] and np.isnan(risk.uncertainty_rare[0])
    zhao = bias.bias_amplification_zhao(0 * Y, G, y_train=T, sensitive_train=G)
    assert np.isnan(zhao.mean)


def test_one_level_has_no_difference_and_no_ratio():
    for group in (np.zeros(N, int), ["x"] * N):
        rates = bias.group_rates(T, Y, group)
        assert np.isnan(rates.difference()["accuracy"]).all() and np.isnan(rates.ratio()["accuracy"]).all()
        assert (rates.difference("to_overall")["accuracy"] == 0).all()
        audit = bias.compare(Z, W, T, {"g": group})
        for view in (audit.difference(), audit.ratio()):
            assert np.isnan(view["value"]).all() and set(view["reason"]) == {"too_few_levels"}


def test_no_favoured_side_has_no_name():
    weak = bias.bias_amplification(T, Y, G, y_train=[1, 0, 1, 0], sensitive_train=[1, 1, 0, 0])
    with pytest.raises(ValueError, match="no favoured side"):
        bias.to_aif360_groups(weak, 0)


def test_infinite_outputs_have_no_correlation():
    z = np.column_stack([Z, W])
    z[3, 1] = np.inf
    for call in (lambda: bias.interdependence(z, on="logit"), lambda: bias.mean_absolute_correlation(z)):
        with pytest.raises(ValueError, match="value inf at row 3, column 1; expected finite numbers"):
            call()
    assert np.isfinite(bias.interdependence(z, on="prob").value).all()


def test_groups_of_mixed_types_and_frames():
    frame = pd.DataFrame({"sex": pd.Categorical(np.where(G, "F", "M")), "age": pd.array((CLASSES).tolist())})
    audit = bias.compare(Z, W, T, frame, train_labels=T, train_groups=frame)
    assert audit.pair_names == ("sex", "age=0", "age=1", "age=2")
    assert bias.group_rates(T, Y, [0, "unknown"] * (N // 2)).levels == ("0", "unknown")
    with pytest.raises(ValueError, match="values of one type"):
        bias.group_rates(T, Y, [1, "1"] * (N // 2))
    with pytest.raises(ValueError, match="no attribute; expected at least one"):
        bias.bias_amplification(T, Y, {}, y_train=T, sensitive_train={})
