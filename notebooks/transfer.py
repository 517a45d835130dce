# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does a pruned model still transfer?
#
# Iofinova, Peste, Kurtz and Alistarh ("How Well Do Sparse ImageNet Models Transfer?", CVPR 2022) take ImageNet networks,
# dense and pruned by several methods, adapt them to twelve other data sets, with the network frozen ("linear") or trained
# inside its fixed mask ("full"), and compare with the dense network. Part one recomputes the aggregates of that study from
# its 2,655 published runs. Part two asks the same on a small scale, live, with real images: networks pruned on the digits
# 0 to 4, adapted to other digit tasks. The last section says, from the numbers, which of the paper's findings show there.
# Everything is computed below; nothing is typed in.

# %%
import itertools
import os
import sys
import tempfile
import warnings
from pathlib import Path

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
sys.path.insert(0, str((here / ".." / "examples").resolve()))
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # one thread per process, several processes

import matplotlib.pyplot as plt
import pandas as pd
import transfer_digits as study
import verdicts
from IPython.display import Markdown, display
from verdicts import evidence

from sparsejax.analysis import transfer

warnings.filterwarnings("ignore", message=".*os.fork.*")
small = os.environ.get("SPARSEJAX_NOTEBOOK_SIZE", "full") == "small"
data = Path(os.environ.get("SPARSEJAX_DATA", here / ".." / ".." / "shared" / "data"))
pd.set_option("display.precision", 2)
pd.set_option("display.max_rows", 80)
pd.set_option("display.max_colwidth", None)
plt.rcParams["figure.dpi"] = 150

# %% [markdown]
# ## Part one: the published runs
#
# One row of the table is one downstream run. The folder `transfer` holds the authors' raw results
# (`github.com/IST-DASLab/sparse-imagenet-transfer`, folder `raw_results`) as one tidy file, and aggregates computed from
# them by other code, the targets. Set `SPARSEJAX_DATA` to the folder that contains it. Where it is absent this part is
# skipped.

# %%
published = data / "transfer" / "transfer_results.csv"
have_published = published.is_file()
if have_published:
    runs = transfer.read_results(published)
    print(f"{len(runs)} runs: {runs.groupby(['arch', 'regime']).size().to_dict()}")
else:
    print("No published runs here: part one is skipped. The text above says where to get them.")

# %% [markdown]
# ### Against the targets
#
# Largest difference between what is computed here from the raw runs and the target, over all rows, for every number;
# relative for values above 1. The targets are printed with six decimals, so half a unit of the last is 5e-7; ranks,
# p-values and slopes with six digits, so half a unit is up to 5e-6 of the value. The correlations with difficulty were
# computed from cells that had been rounded to six decimals, which is where their larger differences come from.

# %%
MODEL = ["arch", "regime", "method", "sparsity"]


def against(computed, name, keys):
    """Largest absolute difference of each numeric column to the reference file."""
    target = pd.read_csv(data / "transfer" / f"reference_{name}.csv")
    both = target.merge(computed, on=keys, suffixes=("_target", ""), validate="one_to_one")
    assert len(both) == len(target) == len(computed)
    columns = [c.removesuffix("_target") for c in both if c.endswith("_target")]
    numeric = [c for c in columns if both[c].dtype.kind in "fi"]
    assert all((both[c] == both[f"{c}_target"]).all() for c in columns if c not in numeric)
    scale = {c: both[f"{c}_target"].abs().clip(lower=1) for c in numeric}
    return {c: ((both[c] - both[f"{c}_target"]).abs() / scale[c]).max() for c in numeric}


if have_published:
    worst = {
        "cells": against(transfer.cells(runs), "cells", [*MODEL, "dataset"]),
        "aggregates": against(transfer.aggregate(runs), "aggregates", MODEL),
        "ranks": against(
            transfer.rank_methods(runs, tolerance=0.01), "ranks", ["arch", "regime", "sparsity", "method"]
        ),
        "difficulty": against(transfer.difficulty_correlation(runs), "difficulty", MODEL),
    }
    rows = [(table, name, value) for table, each in worst.items() for name, value in each.items()]
    with pd.option_context("display.float_format", "{:.1e}".format):
        display(pd.DataFrame(rows, columns=["table", "number", "largest difference"]).set_index(["table", "number"]))

# %% [markdown]
# ### Over the twelve data sets
#
# Mean accuracy, its difference to the dense network (points), the relative error increase with its standard error over
# data sets (percent; negative: fewer errors than dense), its median, and the number of data sets where the sparse network
# is better; each beside its target.

# %%
if have_published:
    table = transfer.aggregate(runs).set_index(MODEL)
    target = pd.read_csv(data / "transfer" / "reference_aggregates.csv").set_index(MODEL)
    columns = ["mean_acc", "mean_acc_diff", "rel_err_mean", "rel_err_sem", "rel_err_median"]
    columns += ["rel_err_fine_grained", "rel_err_general"]
    shown = pd.concat({"here": 100 * table[columns], "target": 100 * target[columns]}, axis=1).swaplevel(axis=1)
    shown = shown[columns]
    shown["n_better", "here"], shown["n_better", "target"] = table["n_better"], target["n_better"]
    for arch in ("resnet50", "mobilenetv1"):
        for regime in ("linear", "full"):
            display(Markdown(f"{arch}, {regime}, percent"), shown.loc[arch, regime].round(2))

# %%
if have_published:
    resnet = runs[runs["arch"] == "resnet50"]
    transfer.plot_relative_error(resnet)
    plt.show()
    transfer.plot_datasets(resnet, regime="linear")
    plt.show()
    transfer.plot_datasets(resnet, regime="full")
    plt.show()

# %%
if have_published:
    transfer.plot_relative_error(runs, arch="mobilenetv1")
    plt.show()
    transfer.plot_tasks(resnet, regime="linear")
    plt.show()
    transfer.plot_tasks(resnet, regime="full")
    plt.show()

# %% [markdown]
# ### Categories of methods, ranks, agreement of the regimes

# %%
if have_published:
    by_category = transfer.aggregate_categories(resnet)
    display((100 * by_category.pivot(index="category", columns=["regime", "sparsity"], values="rel_err_mean")).round(2))
    ranks = transfer.rank_methods(resnet)
    display(ranks.pivot(index="method", columns=["regime", "sparsity"], values="mean_rank").round(2))
    display(transfer.regime_agreement(resnet).round(3))
    display(100 * transfer.seed_noise(runs).set_index(["arch", "regime"])[["mean", "median", "max"]])
    transfer.plot_ranks(resnet)
    plt.show()

# %% [markdown]
# ### Tests
#
# Sparse against dense over the twelve data sets: two-sided exact signed-rank test, without and with Holm's correction over
# the 19 sparse networks of a regime. A gain that does not survive the correction is a match, not a win. Below it, the
# regularization methods against WoodFisher at the same sparsity.

# %%
if have_published:
    tests = transfer.compare_to_dense(resnet).merge(transfer.win_tie_loss(resnet), on=MODEL)
    tests["mean_acc_diff"] *= 100
    with pd.option_context("display.precision", 4):
        display(tests.drop(columns="arch").set_index(["regime", "method", "sparsity"]))
        rows = []
        for method in ("AC/DC", "STR", "RigL ERK 5x", "RigL ERK 1x"):
            each = transfer.compare_methods(resnet, method, "WoodFisher").assign(method=method)
            rows.append(each)
        pairs = pd.concat(rows).assign(mean_acc_diff=lambda t: 100 * t["mean_acc_diff"])
        display(pairs.set_index(["regime", "method", "sparsity"]).drop(columns="arch").sort_index())

# %% [markdown]
# ### Difficulty of the task, and accuracy upstream
#
# Difficulty is what full training gains over the frozen network, for the dense one. Where networks are frozen, the methods
# that train sparse gain most on the hardest tasks. The ImageNet accuracies are those printed by the methods' repositories,
# not always of these checkpoints, and there are none for WoodFisher and LTH-T, so what these would do to the relation is
# not seen. The last table is an illustration: `n_models` says on how little it stands, and much of the correlation goes
# when STR, with its one model at sparsity 0.98, is left out.

# %%
if have_published:
    display(transfer.task_difficulty(resnet).drop(columns="arch").set_index("dataset") * 100)
    correlation = transfer.difficulty_correlation(resnet)
    display(correlation.pivot(index="method", columns=["regime", "sparsity"], values="pearson_r").round(2))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for ax, regime in zip(axes, ("linear", "full"), strict=True):
        transfer.plot_difficulty(resnet, regime=regime, sparsity=0.9, ax=ax)
    plt.show()
    upstream_published = pd.read_csv(data / "transfer" / "upstream_published.csv")
    upstream_published["accuracy"] = upstream_published["imagenet_top1"] / 100
    without_str = upstream_published[upstream_published["method"] != "STR"]
    both = {
        "all": transfer.upstream_correlation(resnet, upstream_published[upstream_published["arch"] == "resnet50"]),
        "without STR": transfer.upstream_correlation(resnet, without_str[without_str["arch"] == "resnet50"]),
    }
    display(pd.concat(both).droplevel(1))
    transfer.plot_upstream(resnet, upstream_published)
    plt.show()

# %% [markdown]
# ## Part two: the same questions, live
#
# Upstream: MNIST 0 to 4 at 14 x 14 pixels (8,000 of the 10,000 images of its test half for training). A network
# 196-96-96-96-64 with batch norm is trained dense; by gradual magnitude pruning (GMP, progressive); by AC/DC
# (regularization); and as a lottery ticket (LTH-T: the mask of iterative pruning on the dense weights, never trained with
# it), with the batch statistics of the dense network (stale) or estimated anew on the upstream images (recalibrated).
# Downstream: MNIST 5 to 9, the same with 20 images a class, Semeion and scikit-learn's digits, 5 to 9 and 0 to 9. A seed is
# a whole run, upstream and downstream, so that the spread over seeds holds the luck of the checkpoint, which the published
# runs cannot show. The linear classifier is the study's (SGD on raw features), and beside it logistic regression on
# standardised features. All of it takes less than ten minutes on two cores.

# %%
have_images = (data / "mnist10k").is_dir() and (data / "semeion").is_dir()
levels = (0.95,) if small else study.SPARSITIES
seeds = range(1) if small else range(5)
tasks = ("semeion59",) if small else study.TASKS
if have_images:
    upstream_task, downstream = study.make_data(data)
    figure, axes = plt.subplots(2, 9, figsize=(9, 2.3), layout="constrained")
    sources = (upstream_task, downstream["semeion10"], downstream["digits10"])
    for column, source in enumerate(sources):
        for k in range(6):
            ax = axes[k // 3, 3 * column + k % 3]
            ax.imshow(source.train.pixels[k].reshape(14, 14), cmap="gray")
            ax.axis("off")
            if k == 1:
                ax.set_title(source.name, fontsize=8)
    plt.show()
    sizes = {task.name: (len(task.train), len(task.test), task.num_classes) for task in downstream.values()}
    display(pd.DataFrame(sizes, index=["training", "test", "classes"]).T)
else:
    print(
        "No MNIST and Semeion in SPARSEJAX_DATA: part two is skipped. examples/transfer_digits.py says what they are."
    )

# %%
if have_images:
    with tempfile.TemporaryDirectory() as fresh:
        out = os.environ.get("SPARSEJAX_TRANSFER_RUNS", fresh)  # a folder where runs are kept and not done again
        results, upstream = study.run_study(
            data,
            out,
            seeds=seeds,
            sparsities=levels,
            tasks=tasks,
            workers=1 if small else 2,
            full_steps=40 if small else study.FULL_STEPS,
            probe_epochs=15 if small else 150,
        )
    print(f"{len(results)} downstream runs of {len(upstream)} networks")
    display((100 * study.summary(results, upstream)).round(1))

# %% [markdown]
# The table is mean test accuracy, percent, over seeds and tasks. Full training starts stale and recalibrated tickets from
# the same weights and estimates batch statistics anew, so it was run once: the cells without a number.
#
# The spread: standard deviation over seeds of the mean over tasks, points.

# %%
if have_images and not small:
    by_seed = results.groupby(["regime", "method", "sparsity", "seed"])["value"].mean()
    spread = 100 * by_seed.groupby(["method", "sparsity", "regime"]).std().unstack("regime")
    display(spread.reindex(study.METHODS, level="method").round(2))

# %%
if have_images:
    transfer.plot_relative_error(results, min_error=0.005)
    plt.show()
    if not small:
        transfer.plot_datasets(results, regime="linear", columns=3)
        plt.show()
        transfer.plot_datasets(results, regime="full", columns=3)
        plt.show()

# %% [markdown]
# ## Which of the paper's findings show here
#
# A finding compares two networks: it is a claim that the mean accuracy over tasks of the first is above that of the second
# by more than a margin, in points. Both networks of a seed share the seed, so the numbers are differences of the same
# seed. In brackets: the 95 % t interval of the mean over seeds. The finding shows at a sparsity if the whole interval is
# above the margin, does not show if the whole interval is below it, and is unclear otherwise. As a whole it shows, or does
# not, if that is the verdict at every sparsity. A network that is compared with that of the sparsity before has nothing
# before it at the lowest: there the comparison is exempt.

# %%
numbers, compared = [], []


def claim(finding, regime, first, second, margin=0.0, where=levels):
    """Add a finding; ``first`` and ``second`` are functions from the sparsity to (method, sparsity)."""
    for level in where:
        one, other = first(level), second(level)
        pair = study.paired(results, regime, one, other)
        numbers.append(evidence(finding, f"{100 * level:g} %", pair["by_seed"], margin))
        names = [f"{method} {sparsity:g}" for method, sparsity in (one, other)]
        possible = len(tasks) * len(seeds)
        compared.append({
            "finding": finding, "sparsity": level, "regime": regime, "first": names[0], "second": names[1],
            "by seed": " ".join(f"{value:+.1f}" for value in pair["by_seed"]),
            "pairs in favour": pair["better"], "pairs": pair["pairs"], "pairs exempt": possible - pair["pairs"],
        })  # fmt: skip


def of(method):
    """The network of a method at a sparsity."""
    return lambda level: (method, level)


def dense(_):
    """The dense network."""
    return ("Dense", 0.0)


if have_images:
    before = dict(itertools.pairwise(levels[::-1]))
    claim("frozen, AC/DC is no more than 1 point below dense", "linear", of("AC/DC"), dense, margin=-1.0)
    claim("frozen, AC/DC is above dense", "linear", of("AC/DC"), dense)
    claim("frozen, AC/DC (regularization) is above GMP (progressive)", "linear", of("AC/DC"), of("GMP"))
    claim("trained, GMP (progressive) is above AC/DC (regularization)", "full", of("GMP"), of("AC/DC"))
    for method in ("GMP", "AC/DC", "LTH-T"):
        claim(f"trained, {method} is below dense", "full", dense, of(method))
    for method in ("GMP", "AC/DC", "LTH-T"):
        earlier = [level for level in levels if level in before]
        claim(f"trained, {method} is below itself at the sparsity before", "full",
              lambda level, method=method: (method, before[level]), of(method), where=earlier)  # fmt: skip
    claim("frozen, LTH-T is more than 15 points below dense", "linear", dense, of("LTH-T"), margin=15.0)
    claim("trained, LTH-T is no more than 2 points below GMP", "full", of("LTH-T"), of("GMP"), margin=-2.0)
    display(pd.DataFrame(compared).set_index(["finding", "sparsity"]))
    fixed = [2022, 2655, 0, 1, 4, 5, 9, 14, 19, 20, 64, 95, 96, 196, 8000, 10000, 0.98, 5e-6, 5e-7]  # named in the text
    table = verdicts.show(numbers, fixed)

# %% [markdown]
# ### Is it the ticket, or how it is read?
#
# The frozen ticket collapses under the study's classifier. How much of this is a matter of scale and stale statistics?
# The same frozen network, the same images: with the study's SGD on raw features, with logistic regression on standardised
# features, and with the study's SGD after batch norm was recalibrated on the upstream images. Whether the answer holds for
# ImageNet networks the published runs cannot tell.

# %%
if have_images:
    mean = 100 * results.groupby(["regime", "method", "sparsity"])["value"].mean()
    rows = {
        level: {
            "dense, SGD": mean["linear", "Dense", 0.0],
            "dense, standardised": mean[study.LBFGS, "Dense", 0.0],
            "LTH-T stale, SGD": mean["linear", "LTH-T", level],
            "LTH-T stale, standardised": mean[study.LBFGS, "LTH-T", level],
            "LTH-T recalibrated, SGD": mean["linear", "LTH-T recalibrated", level],
            "LTH-T, trained": mean["full", "LTH-T", level],
        }
        for level in levels
    }
    readings = pd.DataFrame(rows).T
    readings.index.name = "sparsity"
    display(readings.round(1))
    verdicts.store(readings={"sparsity": levels[-1], **readings.iloc[-1].to_dict()})
    text = study.reading_sentence(readings.iloc[-1].to_dict(), levels[-1])
    display(Markdown(text))

# %% [markdown]
# What this small study cannot ask: longer sparse training (of RigL), the relation to the difficulty of a task, and
# anything about ImageNet. It is one architecture on handwritten digits; the tasks are near each other, and the methods'
# recipes differ in length as they do in the paper.
