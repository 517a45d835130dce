"""Tables from small made-up results: definitions, edge cases, errors, figures, the page."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sparsejax.analysis import transfer


def made(seeds=(0, 1, 2), seed=0):
    """Two methods at two sparsities on four tasks, both regimes."""
    rng = np.random.default_rng(seed)
    rows = []
    models = [("Dense", 0.0), *itertools.product(("AC/DC", "GMP"), (0.8, 0.9))]
    for regime, (method, sparsity), dataset, run in itertools.product(
        ("linear", "full"), models, ("cars", "pets", "dtd", "own"), seeds
    ):
        level = 0.7 + 0.1 * (regime == "full") - 0.2 * sparsity * (method == "GMP")
        row = {"arch": "net", "regime": regime, "method": method, "sparsity": sparsity, "dataset": dataset}
        rows.append(row | {"seed": run, "value": level + rng.normal(0, 0.01)})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def runs():
    return made()


def test_relative_error_increase():
    r = transfer.relative_error_increase
    assert r(0.9, 0.9) == 0 and r(1.0, 0.9) == pytest.approx(-1)
    assert (np.diff(r(np.linspace(0, 1, 11), 0.5)) < 0).all()
    assert r(0.99, 0.995) == pytest.approx(1.0) and r(0.99, 0.995, min_error=0.05) == pytest.approx(0.1)
    assert np.isnan(r(0.99, 0.995, min_error=0.05, below="exclude"))
    for arguments, options, words in (
        ((90.0, 0.9), {}, r"accuracy has values from 90 to 90; expected fractions in \[0, 1\]. Are these percent"),
        ((0.9, 1.0), {}, "dense has an error of 0"),
        ((0.9, 0.9), {"below": "drop"}, "below has value 'drop'"),
    ):
        with pytest.raises(ValueError, match=words):
            r(*arguments, **options)


def test_accuracies():
    y = np.repeat(np.arange(4), 5)
    predicted = np.random.default_rng(0).integers(0, 4, 20)
    assert transfer.top1_accuracy(y, predicted) == pytest.approx(transfer.mean_per_class_accuracy(y, predicted))
    assert transfer.mean_per_class_accuracy([0, 2], [0, 2], 5) == 1.0  # classes 1, 3, 4 have no example
    for arguments, words in (
        (([0, 1], [0]), r"y_pred has shape \(1,\); expected one class for each of y_true"),
        (([], []), "y_true has no element"),
    ):
        with pytest.raises(ValueError, match=words):
            transfer.top1_accuracy(*arguments)
    with pytest.raises(ValueError, match="values 0 to 3; expected the range 0 to 2"):
        transfer.per_class_accuracy([0, 3], [0, 0], 3)


@pytest.mark.parametrize("n", [1, 5, 12])
def test_exact_signed_ranks_are_those_of_scipy_without_ties(n):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    assert transfer.wilcoxon_exact(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_signed_ranks_with_ties_by_brute_force():
    d = np.array([1, 1, -1, 2, 2, 3, -3, 0])
    nonzero = d[d != 0]
    ranks = stats.rankdata(abs(nonzero))
    observed = abs(ranks[nonzero > 0].sum() - ranks.sum() / 2)
    sums = [ranks[list(signs)].sum() for signs in itertools.product((False, True), repeat=len(ranks))]
    expected = np.mean([abs(total - ranks.sum() / 2) >= observed for total in sums])
    assert transfer.wilcoxon_exact(d) == pytest.approx(expected)
    assert transfer.wilcoxon_exact([0.0, 0.0]) == 1.0 and transfer.wilcoxon_exact(np.ones(60)) < 1e-15


def test_holm():
    assert transfer.holm([0.5, np.nan, 0.01]).tolist()[0] == 0.5
    np.testing.assert_allclose(transfer.holm([0.04, np.nan, 0.01]), [0.04, np.nan, 0.02])
    assert (transfer.holm(np.full(4, 0.9)) == 1).all()


def test_unequal_numbers_of_seeds_are_averaged_first(runs):
    fewer = runs.drop(runs.query("method == 'GMP' and dataset == 'cars' and seed > 0").index)
    cells = transfer.cells(fewer).query("method == 'GMP' and dataset == 'cars'")
    assert cells["n_runs"].tolist() == [1] * 4 and cells["std"].isna().all()
    found = transfer.report(fewer)
    assert any("between 1 and 3 runs" in text for text in found.caveats)
    wins = transfer.win_tie_loss(fewer).query("method == 'GMP'")
    assert (wins["untested"] == 1).all() and (wins["loss"] == 3).all()


def test_bad_tables_are_refused(runs):
    dense_gone = runs.query("not (method == 'Dense' and dataset == 'pets' and regime == 'full')")
    percent, gap = runs.assign(value=100 * runs["value"]), runs.copy()
    gap.loc[3, "value"] = np.nan
    two_dense = pd.concat([runs, runs.query("method == 'Dense'").assign(sparsity=0.5)])
    for table, words in (
        (runs.drop(columns="seed"), "results has no column 'seed'"),
        (runs.iloc[:0], "results has no row"),
        (percent, "expected fractions. Are these percent"),
        (gap, r"results\['value'\] has 1 missing values; expected none. First in row 3"),
        (dense_gone, r"baseline 'Dense' has no run in \(net, full, pets\)"),
        (two_dense, "baseline 'Dense' has several sparsities"),
        (runs.assign(sparsity=1.0), r"results\['sparsity'\] has value 1"),
    ):
        with pytest.raises(ValueError, match=words):
            transfer.cells(table)
    perfect = runs.assign(value=np.where(runs["method"] == "Dense", 1.0, runs["value"]))
    with pytest.raises(ValueError, match="an error of 0; expected errors above 0, or min_error"):
        transfer.aggregate(perfect)
    assert np.isfinite(transfer.aggregate(perfect, min_error=0.01)["rel_err_mean"]).all()


def test_repeated_rows_are_kept_counted_and_warned_about(runs):
    twice = pd.concat([runs, runs.head(1)])
    with pytest.warns(transfer.RepeatedRunsWarning, match="2 rows share keys and seed"):
        cells = transfer.cells(twice)
    assert cells["n_runs"].sum() == len(runs) + 1
    named = twice.assign(repeat=[0] * len(runs) + [1])
    assert transfer.cells(named)["n_runs"].sum() == len(runs) + 1


def test_near_sparsities_are_together_only_when_asked(runs):
    near = runs.assign(sparsity=np.where(runs["method"] == "GMP", runs["sparsity"] - 0.01, runs["sparsity"]))
    with pytest.raises(ValueError, match="no sparsity with two methods"):
        transfer.rank_methods(near)
    ranks = transfer.rank_methods(near, tolerance=0.0101)
    assert sorted(ranks["sparsity"].unique()) == [0.8, 0.9]
    np.testing.assert_allclose(ranks.groupby(["regime", "sparsity"])["mean_rank"].sum(), 6)
    with pytest.raises(ValueError, match="no sparsity common"):
        transfer.compare_methods(near, "AC/DC", "GMP")
    assert (transfer.compare_methods(near, "AC/DC", "GMP", tolerance=0.011)["mean_acc_diff"] > 0.1).all()
    with pytest.raises(ValueError, match="value 'RigL'; expected one of"):
        transfer.compare_methods(near, "RigL", "GMP")


def test_the_page_and_its_tables(runs, tmp_path):
    upstream = pd.DataFrame({"arch": "net", "method": ["Dense", "AC/DC", "GMP"], "sparsity": [0.0, 0.8, 0.8]})
    found = transfer.report(runs.assign(metric="top1"), upstream=upstream.assign(accuracy=[0.9, 0.8, 0.7]))
    text = found.to_markdown()
    assert "AC/DC" in text and "luck of that checkpoint" in text and "## Mean ranks" in text
    assert "agreement left out" not in text or "agreement" not in found.tables
    assert {"aggregates", "ranks", "upstream", "against_dense", "difficulty", "noise"} <= set(found.tables)
    assert found.tables["upstream"]["n_models"].tolist() == [3, 3]
    found.save(tmp_path)
    assert (tmp_path / "report.md").read_text() == str(found)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "aggregates.csv"), found.tables["aggregates"])
    one_regime = transfer.report(runs.query("regime == 'full'"))
    assert "difficulty" in one_regime.left_out and "difficulty left out" in str(one_regime)


def test_figures_show_what_the_tables_say(runs):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = transfer.aggregate(runs)
    axes = transfer.plot_relative_error(runs).ravel()
    assert [ax.get_title() for ax in axes] == ["full", "linear"]
    for ax in axes:
        assert ax.get_yscale() == "linear" and not any("times" in label.get_text() for label in ax.get_yticklabels())
    container = {c.get_label(): c for c in axes[1].containers}["GMP"]
    expected = 100 * table.query("regime == 'linear' and method == 'GMP'")["rel_err_mean"]
    np.testing.assert_allclose(container.lines[0].get_ydata().astype(float), expected)
    panels = transfer.plot_datasets(runs, regime="full").ravel()
    assert [ax.get_title() for ax in panels] == ["cars", "dtd", "own", "pets"]
    heat = transfer.plot_tasks(runs, regime="full")
    assert heat.images[0].get_array().shape == (4, 4)
    assert transfer.plot_relative_error(runs, statistic="median").size == 2
    assert transfer.plot_ranks(runs).ravel()[0].yaxis_inverted()
    assert len(transfer.plot_difficulty(runs, regime="linear", sparsity=0.9).lines) >= 4
    upstream = table[["arch", "method", "sparsity"]].drop_duplicates().assign(accuracy=0.8)
    assert transfer.plot_upstream(runs, upstream).size == 2
    for call, words in (
        (lambda: transfer.plot_datasets(runs, regime="frozen"), "regime has value 'frozen'"),
        (lambda: transfer.plot_difficulty(runs, regime="linear", sparsity=0.5), "sparsity has value 0.5"),
        (lambda: transfer.plot_relative_error(runs, arch="other"), "arch has value 'other'"),
        (lambda: transfer.plot_relative_error(runs, statistic="mode"), "statistic has value 'mode'"),
        (lambda: transfer.plot_relative_error(pd.concat([runs, runs.assign(arch="b")])), "arch has no value"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    pyplot.close("all")


def test_one_method_that_is_far_off_does_not_stretch_the_axis(runs):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    far = runs[(runs["method"] == "GMP")].assign(method="LTH-T", value=0.01)
    far = far[far["sparsity"] == far["sparsity"].max()]
    for panel in transfer.plot_datasets(pd.concat([runs, far]), regime="full").ravel():
        if panel.get_visible():
            assert panel.get_ylim()[0] > 1.0  # percent: the point at 1 % is below the axis
            assert "1" in [text.get_text() for text in panel.texts]
            for bars in (each for each in panel.containers if each.get_label() != "LTH-T"):
                ends = np.concatenate(bars.lines[2][0].get_segments())[:, 1]
                assert panel.get_ylim()[0] < ends.min() and ends.max() < panel.get_ylim()[1]
    near = transfer.plot_datasets(runs, regime="full").ravel()[0]
    assert not near.texts


def test_a_point_that_is_not_far_is_drawn_where_it_is(runs):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    one = runs[(runs["dataset"] == "cars") & (runs["regime"] == "full")]
    wide = one.assign(value=one["value"].where(one["sparsity"] < one["sparsity"].max(), one["value"].min() - 0.02))
    panel = transfer.plot_datasets(wide, regime="full").ravel()[0]
    assert not panel.texts and panel.get_ylim()[0] < 100 * wide["value"].min()


def test_the_level_of_the_dense_model_is_always_inside(runs):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    low = runs.assign(value=runs["value"].where(runs["method"] == "Dense", 0.1 * runs["value"]))
    for panel in transfer.plot_datasets(low, regime="full").ravel():
        if panel.get_visible():
            (level,) = (line.get_ydata()[0] for line in panel.lines if line.get_label() == "Dense")
            assert panel.get_ylim()[0] < level < panel.get_ylim()[1] and not panel.texts
            assert panel.get_xlim()[0] > 0.5


def test_a_method_has_one_colour_and_marker_in_every_figure(runs):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")

    def style(ax):
        lines = {container.get_label(): container[0] for container in ax.containers}
        return lines["GMP"].get_color(), lines["GMP"].get_marker()

    everything = transfer.plot_relative_error(runs).ravel()[0]
    alone = transfer.plot_relative_error(runs[runs["method"].isin(["Dense", "GMP"])]).ravel()[0]
    assert style(everything) == style(alone) == style(transfer.plot_datasets(runs, regime="full").ravel()[0])
