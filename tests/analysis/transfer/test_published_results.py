"""The published aggregates, recomputed from the raw runs of the study."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from sparsejax.analysis import transfer
from sparsejax.analysis.transfer.tables._relations import correlate_cells

MODEL = ["arch", "regime", "method", "sparsity"]


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "transfer"


@pytest.fixture(scope="module")
def runs(folder):
    return transfer.read_results(folder / "transfer_results.csv")


def agree(found, reference, keys, columns, significant=()):
    """Every number of the reference, to its printed precision: six decimals, or six digits for ``significant``."""
    assert len(found) == len(reference)
    merged = reference.merge(found, on=keys, suffixes=("_ref", ""), how="left", validate="one_to_one")
    for name in columns:
        want, got = merged[f"{name}_ref"].to_numpy(), merged[name].to_numpy()
        if want.dtype == object:
            assert (want == got).all(), name
            continue
        want, got = want.astype(float), got.astype(float)
        np.testing.assert_array_equal(np.isnan(want), np.isnan(got), err_msg=name)
        precision = {"rtol": 5.1e-6, "atol": 0} if name in significant else {"rtol": 0, "atol": 5.1e-7}
        np.testing.assert_allclose(got, want, err_msg=name, **precision)


def test_cells(runs, folder):
    reference = pd.read_csv(folder / "reference_cells.csv")
    columns = ["category", "metric", "n_runs", "mean", "std", "dense_mean", "acc_diff", "rel_err_increase"]
    agree(transfer.cells(runs), reference, [*MODEL, "dataset"], columns)


def test_aggregates(runs, folder):
    reference = pd.read_csv(folder / "reference_aggregates.csv")
    columns = [name for name in reference.columns if name not in MODEL]
    assert {"rel_err_fine_grained", "wilcoxon_p", "rel_err_median", "n_better"} < set(columns)
    agree(transfer.aggregate(runs), reference, MODEL, columns)


def test_ranks(runs, folder):
    reference = pd.read_csv(folder / "reference_ranks.csv")
    significant = ["mean_rank", "friedman_chi2", "friedman_p"]
    keys = ["arch", "regime", "sparsity", "method"]
    agree(transfer.rank_methods(runs, tolerance=0.01), reference, keys, ["n_methods", *significant], significant)


def test_difficulty(runs, folder):
    """The reference was computed from cells of six decimals: equal from those, and within 1e-5 from the runs."""
    reference = pd.read_csv(folder / "reference_difficulty.csv")
    significant = ["pearson_p", "spearman_p", "slope"]
    columns = ["n_datasets", "pearson_r", "spearman_rho", *significant]
    cells, difficulty = transfer.cells(runs).round(6), transfer.task_difficulty(runs)
    from_cells = correlate_cells(cells[cells["method"] != "Dense"], difficulty.round(6))
    agree(from_cells, reference, MODEL, columns, significant)
    from_runs = reference.merge(transfer.difficulty_correlation(runs), on=MODEL, suffixes=("_ref", ""))
    for name in columns:
        np.testing.assert_allclose(from_runs[name], from_runs[f"{name}_ref"], rtol=1e-4, atol=1e-5, err_msg=name)
    hardest = difficulty.query("arch == 'resnet50'").iloc[0]
    assert hardest["dataset"] == "cars" and round(100 * hardest["difficulty"], 1) == 36.8


def test_categories(runs):
    """The mean over all pairs of method and data set, by category."""
    table = transfer.aggregate_categories(runs).query("arch == 'resnet50' and sparsity < 0.97")
    found = (100 * table.pivot(index="category", columns=["regime", "sparsity"], values="rel_err_mean")).round(2)
    expected = {
        "progressive": [15.31, 14.04, 16.94, 0.66, 4.03, 13.38],
        "regularization": [-0.12, 2.21, 8.29, 17.80, 22.96, 33.04],
        "lottery_ticket": [79.40, 220.63, 401.56, 9.34, 36.80, 110.36],
    }
    order = list(itertools.product(("linear", "full"), (0.8, 0.9, 0.95)))
    for category, values in expected.items():
        assert found.loc[category, order].tolist() == values
    pairs = table.groupby("category")["n_pairs"].first()
    assert pairs.to_dict() == {"progressive": 12, "regularization": 48, "lottery_ticket": 12}


def test_noise_over_seeds(runs):
    noise = (100 * transfer.seed_noise(runs).set_index(["arch", "regime"])[["mean", "median", "max"]]).round(2)
    assert noise.loc["resnet50", "linear"].tolist() == [0.10, 0.07, 0.62]
    assert noise.loc["resnet50", "full"].tolist() == [0.22, 0.17, 1.28]
    assert noise.loc["mobilenetv1", "linear"].tolist() == [0.09, 0.07, 0.39]


def test_findings_on_sparse_against_dense(runs):
    table = transfer.compare_to_dense(runs).set_index(MODEL).loc["resnet50"]
    row = table.loc[("linear", "AC/DC", 0.8)]
    assert (round(100 * row["mean_acc_diff"], 2), row["n_better"]) == (1.05, 9)
    assert round(row["p"], 3) == 0.021 and round(row["p_corrected"], 2) == 0.23
    for level in (0.8, 0.9, 0.95):
        row = table.loc[("linear", "WoodFisher", level)]
        assert row["n_better"] == 0 and round(row["p"], 4) == 0.0005 and round(row["p_corrected"], 4) == 0.0093
    full = table.loc["full"].drop("WoodFisher", level="method")
    assert len(full) == 16 and (full["mean_acc_diff"] < 0).all() and full["p_corrected"].max() <= 0.0345


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("AC/DC", [(4.75, 12, 0.0005), (4.07, 11, 0.001), (4.12, 11, 0.001)]),
        ("STR", [(4.31, 10, 0.005), (2.85, 9, 0.007), (1.39, 9, 0.042)]),
        ("RigL ERK 1x", [(3.75, 9, 0.012), (2.33, 9, 0.021), (1.64, 9, 0.11)]),
    ],
)
def test_findings_on_methods_against_each_other(runs, method, expected):
    table = transfer.compare_methods(runs, method, "WoodFisher").query("regime == 'linear'")
    for (points, better, p), row in zip(expected, table.itertuples(), strict=True):
        assert round(100 * row.mean_acc_diff, 2) == pytest.approx(points, abs=0.0051)
        assert row.n_better == better and row.p == pytest.approx(p, rel=0.06)


def test_the_mean_of_the_regularization_methods_is_below_woodfisher_when_trained(runs):
    methods = ["AC/DC", "STR", "RigL ERK 1x", "RigL ERK 5x"]
    table = transfer.compare_methods(runs, methods, "WoodFisher").query("regime == 'full'")
    assert (100 * table["mean_acc_diff"]).round(2).tolist() == [-1.94, -2.13, -2.23]
    assert table["n_better"].tolist() == [0, 0, 0]


def test_the_regimes_order_methods_differently(runs):
    table = transfer.regime_agreement(runs).query("arch == 'resnet50'").set_index("sparsity")
    assert table.loc[[0.8, 0.9, 0.95], "kendall_tau"].round(2).tolist() == [0.07, 0.47, 0.47]
    overall = table[table.index.isna()].iloc[0]
    assert overall["n_models"] == 19 and round(overall["spearman_rho"], 2) == 0.37
    assert round(overall["spearman_p"], 2) == 0.12
    without = transfer.regime_agreement(runs[runs["method"] != "LTH-T"]).query("arch == 'resnet50'")
    assert without.set_index("sparsity").loc[[0.8, 0.9, 0.95], "kendall_tau"].round(2).tolist() == [0.2, 0.2, 0.2]


def test_upstream_accuracy(runs, folder):
    upstream = pd.read_csv(folder / "upstream_published.csv").assign(accuracy=lambda t: t["imagenet_top1"] / 100)
    table = transfer.upstream_correlation(runs, upstream).query("arch == 'resnet50'").set_index("regime")
    assert table["n_models"].tolist() == [13, 13]
    assert table.loc["linear", ["pearson_logit", "spearman_rho"]].astype(float).round(2).tolist() == [0.97, 0.79]
    assert table.loc["full", ["pearson_logit", "spearman_rho"]].astype(float).round(2).tolist() == [0.90, 0.73]
    rest = transfer.upstream_correlation(runs, upstream[upstream["method"] != "STR"])
    rest = rest.query("arch == 'resnet50'").set_index("regime")
    assert rest.loc["linear", ["pearson_logit", "spearman_rho"]].astype(float).round(2).tolist() == [0.63, 0.62]
    assert rest["n_models"].tolist() == [9, 9]


def test_the_order_of_rows_does_not_matter(runs):
    shuffled = runs.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(transfer.aggregate(shuffled), transfer.aggregate(runs))


def test_wins_over_seeds(runs):
    table = transfer.win_tie_loss(runs).set_index(MODEL)
    row = table.loc[("resnet50", "linear", "LTH-T", 0.95)]
    assert (row["win"], row["loss"]) == (0, 12)
    assert table.loc[("mobilenetv1", "full", "AC/DC", 0.9), "untested"] == 12
