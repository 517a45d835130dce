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
# # Which groups lose accuracy after pruning?
#
# Iofinova, Peste and Alistarh ("Bias in Pruned Vision Models", CVPR 2023) ask what happens to single attributes and
# groups when a network is pruned, whether the dense model foretells it, and what can be done. This notebook asks the same
# on a small scale, with real digits and this library's own pruning and audit: one multilayer perceptron predicts twelve
# attributes of noisy views of the scikit-learn digits, dense and with gradual magnitude pruning from 80 to 99.5 %.
#
# It is a demonstration on one small data set, not a test of the paper, and its groups are properties of digits ("thick",
# "slanted"), not of people. The last section says, from the numbers, which of the paper's findings show here and which
# do not: each has an interval over seeds at every sparsity, and a verdict by a rule. Everything is computed below;
# nothing is typed in. With a folder in `SPARSEJAX_BIAS_RUNS`, trained models are kept there and not trained again.

# %%
import os
import sys
import tempfile
import warnings
from pathlib import Path

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
sys.path.insert(0, str((here / ".." / "examples").resolve()))
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # one thread per process, several processes

import bias_digits as study
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import verdicts
from IPython.display import display
from scipy.stats import spearmanr
from verdicts import evidence

from sparsejax.analysis import bias

warnings.filterwarnings("ignore", message=".*os.fork.*")
small = os.environ.get("SPARSEJAX_NOTEBOOK_SIZE", "full") == "small"
levels = (0.0, 0.9, 0.99) if small else (0.0, *study.SPARSITIES)
seeds, epochs, workers = (2, 8, 1) if small else (5, 60, 2)
keep = os.environ.get("SPARSEJAX_BIAS_RUNS")
pd.set_option("display.precision", 4)
plt.rcParams["figure.dpi"] = 150

# %% [markdown]
# ## The data
#
# No source image is in two splits. `eight` and `zero` are rare. The groups are associated with some of the attributes, and
# that association is what a model may exaggerate.

# %%
data = study.make_data()
train, test = data["train"], data["test"]
figure, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for ax, image, row in zip(axes, test.images, test.labels, strict=False):
    ax.imshow(image[..., 0], cmap="gray")
    ax.set_title("\n".join(n for n, v in zip(study.ATTRIBUTES[:7], row, strict=False) if v), fontsize=7)
    ax.axis("off")
rates = pd.DataFrame({"all": train.labels.mean(axis=0)}, index=study.ATTRIBUTES)
for name, side in train.groups.items():
    for value in (0, 1):
        rates[f"{name} = {value}"] = train.labels[side == value].mean(axis=0)
display(rates.round(3))

# %% [markdown]
# ## Training
#
# The same seeds for dense and sparse; the optimizer, data order and schedule do not change with the sparsity. The sparsity
# in the tables is the one asked for; what was measured is printed here.

# %%
jobs = [(study.train_joint, data, level, seed, epochs) for level in levels for seed in range(seeds)]
results = iter(study.run_many(jobs, workers, keep))
runs = {level: [next(results) for _ in range(seeds)] for level in levels}
print({level: round(each[0]["sparsity"], 5) for level, each in runs.items()})
report = study.audit(data, runs, images=test.images, n_boot=20 if small else 100)
report

# %%
report.plot_overview()
plt.show()

# %% [markdown]
# ## Uncertainty and interdependence
#
# Outputs become less certain as weights go, and depend more on each other. The second shows in probabilities and logits; in
# hard decisions, where the paper's code measures it, the collapse of rare predictions can hide it. The number for the true
# labels is the level of reference.


# %%
def nanmean(values, axis):
    """Mean of the defined values, NaN where there is none."""
    values = np.asarray(values)
    counts = (~np.isnan(values)).sum(axis=axis)
    return np.where(counts > 0, np.nansum(values, axis=axis) / np.maximum(counts, 1), np.nan)


def mean(metric, level, thresholds="default"):
    """Mean over attributes and seeds."""
    return report.overall.where(metric=metric, sparsity=level, thresholds=thresholds)["value"][0]


metrics = ("accuracy", "auc", "uncertainty", "high_uncertainty", "expected_calibration_error", "rare_value_ratio")
main = pd.DataFrame({name: [mean(name, level) for level in levels] for name in metrics}, index=levels)
main.index.name = "sparsity"
display(main)

dependence = pd.DataFrame(
    {
        "probabilities": [mean("interdependence_prob", level) for level in levels],
        "logits": [
            float(nanmean([bias.interdependence(run["test"], on="logit").value for run in runs[s]], None))
            for s in levels
        ],
        "decisions": [mean("interdependence_hard", level) for level in levels],
        "mean |corr|, logits": [
            np.mean([bias.mean_absolute_correlation(run["test"]) for run in runs[s]]) for s in levels
        ],
    },
    index=levels,
)
reference = bias.interdependence(test.labels, on="values").value.mean()
print(f"true labels: R2 {reference:.3f}, mean |corr| {bias.mean_absolute_correlation(test.labels):.3f}")
display(dependence)

# %% [markdown]
# ## Bias amplification, before and after threshold calibration
#
# Positive: among the predicted positives, the side that the training data favours is over-represented relative to the
# truth. Where an attribute is never predicted its cell is lost, which makes a plain mean too good; the "common" columns
# average over the cells that all runs share, and all findings below rest on them. Calibration fits one threshold per attribute on the validation split.

# %%
amplification = pd.DataFrame(
    {
        "per run": [mean("bias_amplification_per_run", s) for s in levels],
        "per run, calibrated": [mean("bias_amplification_per_run", s, "calibrated") for s in levels],
        "common": [mean("bias_amplification", s) for s in levels],
        "common, calibrated": [mean("bias_amplification", s, "calibrated") for s in levels],
        "cells": [report.overall.where(metric="bias_amplification", sparsity=s)["cells"][0] for s in levels],
        "lost": [report.overall.where(metric="bias_amplification", sparsity=s)["lost"][0] for s in levels],
        "|FPR gap|": [mean("absolute_false_positive_rate_gap", s) for s in levels],
        "|FNR gap|": [mean("absolute_false_negative_rate_gap", s) for s in levels],
    },
    index=levels,
)
display(amplification)

rare = []
for level in levels:
    row = {"sparsity": level}
    for thresholds in ("default", "calibrated"):
        where = {"thresholds": thresholds, "sparsity": level, "attribute": "eight"}
        ratios = report.table.where(metric="rare_value_ratio", **where)["value"]
        cells = report.table.where(metric="bias_amplification", group="slanted", **where)["value"]
        row[f"rare ratio, {thresholds}"] = np.mean(ratios)
        row[f"BA with slanted, {thresholds}"] = float(nanmean(cells, 0))
    rare.append(row)
rare = pd.DataFrame(rare).set_index("sparsity")
print("The rare attribute 'eight':")
display(rare)

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
report.plot_bias(axes[0])
report.plot_groups(axes[1], metric="false_negative_rate")
plt.show()

# %% [markdown]
# ## Samples that the dense model marks as exposed
#
# A cell is exposed if 0.1 < p < 0.9 in the dense model. Coverage: the share of the changed decisions that were exposed.
# The control is the churn between dense models that differ in the seed alone: flips below its level are not an effect of
# pruning.

# %%
flips = report.flips.to_pandas().groupby("model", sort=False).mean(numeric_only=True)
columns = ["flip_rate", "uncertain_share", "coverage", "auc", "flip_rate_inside", "flip_rate_outside", "to_common"]
display(flips[columns])
print(report.safe_sparsity()[1])

# %% [markdown]
# ## The ranking of associations by the dense model
#
# `bias_risk` is exploratory (see its documentation). The rank correlation of the dense model's risk with the measured
# change, for each seed, beside that of the plain uncertainty of the attribute on the validation split; mean over seeds
# and the ends of the interval.


# %%
def rank_correlations(level, seed):
    """Correlation of the risk, and of the plain uncertainty, with the change of one seed; and the number of cells."""
    model = next(model for model in report.inputs.sparse if model.sparsity == level)
    change = report.runs_of(model)[seed].changes["bias_amplification"].value.T
    of_dense = runs[0.0][seed]["val"]
    risk = bias.bias_risk(of_dense, data["val"].labels, train.labels, train.groups, kind="logits").risk
    plain = np.broadcast_to(bias.uncertainty(of_dense)[:, None], change.shape)
    use = np.isfinite(risk) & np.isfinite(change) & ~report.frame.is_self
    return spearmanr(risk[use], change[use])[0], spearmanr(plain[use], change[use])[0], use.sum()


correlations = {level: np.array([rank_correlations(level, seed) for seed in range(seeds)]) for level in levels[1:]}
rows = []
for level, found in correlations.items():
    row = {"sparsity": level, "cells": int(found[:, 2].min())}
    for column, name in enumerate(("risk", "plain uncertainty")):
        low, high = verdicts.interval(found[:, column])
        row |= {name: found[:, column].mean(), f"{name}, low": low, f"{name}, high": high}
    rows.append(row)
ranking = pd.DataFrame(rows).set_index("sparsity")
display(ranking)

# %% [markdown]
# ## Overriding exposed decisions
#
# "dense" asks the dense model on exposed samples (a cascade), "label" a person (an upper bound by construction). The second
# table narrows the band to 0.4 < p < 0.6.

# %%
wide = report.mitigations().to_pandas().set_index(["sparsity", "countermeasure"]).drop(columns="strategy")
narrow = report.mitigations(0.1).to_pandas().set_index(["sparsity", "countermeasure"]).drop(columns="strategy")
shown = [level for level in (0.95, 0.99) if level in levels]
display(wide.loc[shown])
display(narrow.loc[shown].filter(like="override", axis=0)[["overridden", "accuracy", "bias_amplification"]])

# %% [markdown]
# ## One attribute at a time, and markers
#
# Single-attribute models have all the weights for one task. In the marker runs, a white square is put on more positives than
# negatives in training and on half of both in the test split; marker bias amplification (bBA) says how far predictions
# follow the square.

# %%
targets = ("loop",) if small else ("loop", "left_heavy")
settings = (
    [("loop", (0.05, 0.95))] if small else [("loop", (0.05, 0.95)), ("loop", (0.35, 0.65)), ("prime", (0.35, 0.65))]
)
single_jobs = [(study.train_single, data, a, s, r, epochs) for a in targets for s in levels for r in range(seeds)]
marker_jobs = [
    (study.train_marked, data, a, q, s, r, epochs) for a, q in settings for s in levels for r in range(seeds)
]
results = iter(study.run_many([*single_jobs, *marker_jobs], workers, keep))

rows, amplified = [], {}
for attribute in targets:
    column = study.ATTRIBUTES.index(attribute)
    truth = test.labels[:, column]
    for level in levels:
        alone = [next(results)["test"][:, 0] for _ in range(seeds)]
        jointly = [run["test"][:, column] for run in runs[level]]
        for name, models in (("single", alone), ("joint", jointly)):
            decided = [bias.hard_predictions(z) for z in models]
            options = {"y_train": train.labels[:, column], "sensitive_train": train.groups}
            values = [bias.bias_amplification(truth, y, test.groups, **options).value.ravel() for y in decided]
            amplified[attribute, level, name] = np.stack(values)
            rows.append((attribute, level, name, np.mean([bias.accuracy(truth, y) for y in decided]),
                         bias.uncertainty(np.stack(models, 1)).mean()))  # fmt: skip
single = pd.DataFrame(rows, columns=["attribute", "sparsity", "training", "accuracy", "uncertain"])
shared_cells = {
    a: np.isfinite(np.concatenate([v for (name, *_), v in amplified.items() if name == a])).all(axis=0) for a in targets
}
amplified = {key: values[:, shared_cells[key[0]]].mean(axis=1) for key, values in amplified.items()}  # one per seed
single["BA"] = [amplified[row.attribute, row.sparsity, row.training].mean() for row in single.itertuples()]
display(single.pivot(index=["attribute", "sparsity"], columns="training"))

# %%
rows = []
for attribute, shares in settings:
    truth = test.labels[:, study.ATTRIBUTES.index(attribute)]
    for level in levels:
        for seed in range(seeds):
            run = next(results)
            decided, mark = bias.hard_predictions(run["test"][:, 0]), run["marked"]
            rows.append((
                attribute, str(shares), level, seed, bias.marker_bias_amplification(truth, decided, mark).value[0],
                bias.false_positive_rate(truth[mark], decided[mark]), bias.false_positive_rate(truth[~mark], decided[~mark]),
                bias.false_negative_rate(truth[mark], decided[mark]), bias.false_negative_rate(truth[~mark], decided[~mark]),
            ))  # fmt: skip
columns = ["target", "shares", "sparsity", "seed", "bBA", "FPR marked", "FPR clean", "FNR marked", "FNR clean"]
marker_runs = pd.DataFrame(rows, columns=columns)
display(marker_runs.drop(columns="seed").groupby(columns[:3]).mean())

# %% [markdown]
# ## Examples that change: PIE and CIE
#
# PIE: the majority of the sparse models decides otherwise than that of the dense ones. Taxicab CIE: by how far the votes move.
# With a handful of models instead of the published 30, part of this is noise.

# %%
exemplars = (
    report.exemplars.where(attribute="").to_pandas().set_index("sparsity").drop(columns=["strategy", "attribute"])
)
votes = {level: bias.hard_predictions(np.stack([run["test"] for run in each])) for level, each in runs.items()}
right = (votes[0.0] == test.labels).mean(axis=0)
for level in levels[1:]:
    cie = bias.cie_taxicab(votes[0.0], votes[level], percentile=95)
    exemplars.loc[level, "dense accuracy on CIE (score above 0)"] = right[cie.score > 0].mean()
display(exemplars)

# %% [markdown]
# ## The report
#
# The same comparison as one HTML file that opens from disk and asks for nothing from the network.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(os.environ.get("SPARSEJAX_BIAS_REPORT", Path(folder) / "bias.html"))
    report.to_html(path)
    print(f"{path.stat().st_size / 1e6:.2f} MB")

# %% [markdown]
# ## Which findings show here
#
# A finding is a claim that a number is above a margin (0 unless one is given), at each sparsity. Numbers are differences
# between a sparse and a dense model of the same seed, or between two treatments of the same model; bias amplification is
# over the cells that are defined in every run, at every threshold, and after every override. In brackets: the 95 % t
# interval of the mean over seeds. The finding shows at a sparsity if the whole interval is above the margin, does not show
# if the whole interval is below it, and is unclear otherwise. As a whole it shows, or does not, if that is the verdict at
# every sparsity.

# %%
sparse = levels[1:]
at = {level: f"{100 * level:g} %" for level in levels}
numbers = study.findings(report, data)  # those about the joint models


def claim(finding, of_level, margin=0.0, where=sparse):
    """Add a finding: a function from the sparsity to one number per seed."""
    numbers.extend(evidence(finding, at[level], of_level(level), margin) for level in where)


claim("the risk ranking of the dense model agrees with the change (rank correlation)", lambda s: correlations[s][:, 0])
for (target, shares), part in marker_runs.groupby(["target", "shares"], sort=False):
    bba = part.set_index(["sparsity", "seed"])["bBA"]
    claim(
        f"reliance on a marker is above dense ({target}, {shares})", lambda s, bba=bba: (bba[s] - bba[0.0]).to_numpy()
    )
for target in targets:
    claim(
        f"one model for all attributes amplifies less than one for each ({target}; single minus joint)",
        lambda s, target=target: amplified[target, s, "single"] - amplified[target, s, "joint"],
        where=levels,
    )


def lower_on_pie(level):
    """Accuracy of each dense model on all cells minus that on the exemplars."""
    changed = bias.pie(votes[0.0], votes[level])
    return [(v == test.labels).mean() - (v == test.labels)[changed].mean() for v in votes[0.0]]


claim("the dense models are less accurate on the exemplars (PIE)", lower_on_pie)
fixed = [2023, 80, 99.5, 30, 0.1, 0.9, 0.4, 0.6, 0, 95, 0.5]  # numbers of the text that are settings, not results
table = verdicts.show(numbers, fixed)

# %% [markdown]
# What this cannot show: anything about people or photographs; the paper's own numbers; convolutional networks; the
# difference between pruning from random initialisation and after training. A small network that serves twelve tasks with
# a few hundred weights is short of capacity, which may matter where one model per attribute does better than one for all.
# The intervals are over seeds of the training, on one data set: they say what these models did.
