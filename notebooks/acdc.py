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
# # AC/DC and the others, on digits
#
# AC/DC (Peste, Iofinova, Vladu and Alistarh, NeurIPS 2021) alternates between training all weights and training only
# the largest few. Its claims: at high sparsity it is at least as accurate as pruning gradually, more accurate than
# training with a fixed budget of weights, cheaper than dense training, and one run gives a sparse and a dense model.
#
# This notebook asks the same on a small scale, with `sparsejax.pruning`: the digits of scikit-learn, shifted and noisy
# so that they are not too easy; a network of two convolutions and two dense layers; every method wraps the same SGD,
# with the same data, initial weights and learning rates. It is a demonstration on one small problem, not a test of the
# paper. The last section says, from the numbers, which of the claims show here and which do not: each has an interval
# over seeds at every sparsity, and a verdict by a rule. Everything is computed below; nothing is typed in. With a folder
# in `SPARSEJAX_ACDC_RUNS`, finished runs are kept there and not trained again.

# %%
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
sys.path.insert(0, str((here / ".." / "examples").resolve()))
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # one thread per process, several processes
os.environ.setdefault("NPROC", "1")  # one for the sparse kernels too: times are compared below

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pruning_digits as study
import pruning_findings as findings
import step_times
import verdicts
from IPython.display import display
from joblib import Memory, Parallel, delayed

import sparsejax as sx
from sparsejax import pruning

warnings.filterwarnings("ignore", message=".*os.fork.*|.*worker stopped.*")
small = os.environ.get("SPARSEJAX_NOTEBOOK_SIZE", "full") == "small"
short = {"epochs": 6, "warmup": 1, "phase": 1, "last_dense": 1, "final_sparse": 1}
design = study.Design(levels=(0.9,), seeds=2, **short) if small else study.Design(seeds=5)
names = ["dense", "AC/DC", "GMP"] if small else list(study.METHODS)
workers = 1 if small else 2
levels, seeds = design.levels, range(1 if small else design.seeds)
keep = os.environ.get("SPARSEJAX_ACDC_RUNS")
memory = Memory(keep, verbose=0)
pd.set_option("display.precision", 3)
plt.rcParams["figure.dpi"] = 150

# %% [markdown]
# ## The data
#
# Each training image is drawn anew in each epoch: shifted by up to one pixel, with Gaussian noise. The test images are
# four fixed draws of images that training never sees.

# %%
data = study.make_data(design)
figure, axes = plt.subplots(1, 10, figsize=(9, 1.3), layout="constrained")
for ax, image, label in zip(axes, data.test, data.test_labels, strict=False):
    ax.imshow(image[..., 0], cmap="gray")
    ax.set_title(label)
    ax.axis("off")
print(
    f"{data.train.shape[1]} training images, {len(data.test)} test images, {design.weights:,} prunable weights in 4 layers"
)

# %% [markdown]
# ## All methods
#
# Accuracy in points on the test images at the end of training, mean and standard deviation over seeds. *Density* is the
# share of weights other than 0, averaged over training, and *FLOP* the operations of training relative to dense, both
# counted as the authors of AC/DC do (multiplications and additions of weights that are numerically not zero; backward
# is twice forward). They say what a perfect sparse implementation would do; measured times are further down. *Promised*
# is the number of weights that the sparsity stands for; *kept* and *non-zero* are weights in the mask and those of them
# that are not 0 at the end: behind units that are dead, grown weights never move.
#
# Convolutions are products of patches with a matrix, and ERK deals out weights by the shapes of those matrices.

# %%
runs = study.run_many(names, design, workers, keep)


def summary(runs):
    """One row for each method and sparsity."""
    rows = []
    for name, run in runs.items():
        density, flops = run.density(), run.flops()
        for i, level in enumerate(run.design.levels):
            rows.append({
                "method": name, "sparsity": level, "accuracy": 100 * run.accuracy[i].mean(),
                "sd": 100 * run.accuracy[i].std(ddof=1), "promised": run.design.weights - round(level * run.design.weights),
                "kept": run.kept[i, 0], "non-zero": run.final_nonzero[i].mean(), "density": density[i].mean(), "FLOP": flops[i].mean(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def readable(frame):
    """Numbers to a tenth, nothing where there is none."""
    return frame.map(lambda value: "" if np.isnan(value) else f"{value:.1f}")


found = summary(runs)
wide = found.pivot(index="method", columns="sparsity", values=["accuracy", "sd"]).loc[names]
display(readable(wide.swaplevel(axis=1).sort_index(axis=1)))
display(found[found.sparsity == levels[len(levels) // 2]].set_index("method").drop(columns=["accuracy", "sd"]))
print("CPU seconds:", {name: round(run.seconds) for name, run in runs.items()})


# %%
colours = dict(zip(study.METHODS, plt.colormaps["tab10"].colors, strict=False))
markers = dict(zip(study.METHODS, "sovD^<>XP", strict=True))
percent = [findings.percent(level) for level in levels]


def plot_accuracy(ax, runs):
    """Accuracy against sparsity; bars span the seeds."""
    for name, run in runs.items():
        accuracy, style = 100 * run.accuracy, {"color": colours[name], "label": name}
        if name == "dense":
            ax.axhline(accuracy.mean(), linestyle="--", **style)
            ax.axhspan(accuracy.min(), accuracy.max(), color=colours[name], alpha=0.1)
            continue
        mean = accuracy.mean(-1)
        spread = np.stack([mean - accuracy.min(-1), accuracy.max(-1) - mean])
        x = np.arange(len(mean)) + 0.06 * (list(runs).index(name) - len(runs) / 2)
        ax.errorbar(x, mean, spread, marker=markers[name], capsize=2, linewidth=1, **style)
    ax.set_xticks(range(len(levels)), percent)
    ax.set(xlabel="sparsity", ylabel="test accuracy, %")


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
plot_accuracy(left, runs)
for name in names:
    each = found[found.method == name]
    right.plot(each.FLOP, each.accuracy, marker=markers[name], color=colours[name])
right.set(xlabel="operations of training, relative to dense", xscale="log")
shares = (0.1, 0.2, 0.5, 1.0)
right.set_xticks(shares, [f"{share:g}" for share in shares], minor=False)
right.set_xticks([], minor=True)
figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
plt.show()

# %% [markdown]
# ## Phases, and how far the mask moves
#
# Left: accuracy at the end of each epoch; compressed phases are shaded. A switch costs accuracy, early on in either
# direction, and the phase wins it back. Right: the share of the support that each compression replaces, mean over seeds
# and their range: exploration first, a frozen support at the end. The second table is the figure of the authors' code,
# the Hamming distance as a part of *all* weights, which at a density d can be 2 d at most.

# %%
acdc, middle = runs["AC/DC"], len(levels) // 2
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name in [name for name in ("dense", "AC/DC", "GMP", "RigL") if name in runs]:
    curve = runs[name].curve[:, 0 if name == "dense" else middle].mean(-1)
    every = max(1, len(curve) // 10)
    left.plot(
        np.arange(1, len(curve) + 1),
        100 * curve,
        color=colours[name],
        marker=markers[name],
        markevery=every,
        label=name,
    )
for phase in design.phases():
    if phase.kind == "sparse":
        left.axvspan(phase.start / design.per_epoch, phase.stop / design.per_epoch, color="grey", alpha=0.15)
top = 100 * runs["dense"].curve.max()
left.set(xlabel="epoch", ylabel="test accuracy, %", title=f"{percent[middle]} zeros", ylim=(top - 35, top + 3))
left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)
compressions = [f"after epoch {epoch}" for epoch, _ in acdc.changes]
shades = plt.colormaps["viridis"](np.linspace(0.1, 0.8, len(levels)))
number = np.arange(2, len(compressions) + 2)  # the first compression has no support before it
lost = pd.DataFrame(acdc.lost().mean(-1), index=compressions, columns=percent)
difference = np.stack([each.difference for _, each in acdc.changes]).mean(-1)
for i, name in enumerate(percent):
    each = acdc.lost()[:, i]
    spread = np.stack([each.mean(-1) - each.min(-1), each.max(-1) - each.mean(-1)])
    right.errorbar(number + 0.05 * i, each.mean(-1), spread, marker="osD"[i], capsize=2, color=shades[i], label=name)
right.set(xlabel="compression", ylabel="share of the support replaced", ylim=(0, None), xticks=number)
right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, title="zeros")
plt.show()
display(lost)
display(pd.DataFrame(difference, index=lost.index, columns=lost.columns).round(4))

# %% [markdown]
# The same for `sparsejax train --method acdc` with its defaults in all else: another network, ten epochs, and a weight
# decay that is chosen so that weights are forgotten within a phase. One row for each seed.

# %%
command = 3 if small else 10  # epochs
changes = Parallel(n_jobs=workers)(
    delayed(memory.cache(study.mask_changes_of_the_command))(seed, command) for seed in seeds
)
display(pd.DataFrame(changes, columns=[f"compression {i + 2}" for i in range(len(changes[0]))], index=seeds))

# %% [markdown]
# ## The dense partner
#
# The same run also gives a dense model: it forks at the end of the last dense phase and goes on without compression for
# as long as the final sparse phase takes (`pruning.dense_partner` does this in a loop of your own). It is not fully
# dense: a unit whose incoming weights are all pruned has no gradient and stays at zero when they are released.

# %%
partner = pd.DataFrame(
    {
        "sparse": 100 * acdc.accuracy.mean(-1),
        "dense, at the fork": 100 * acdc.before.mean(-1),
        "dense partner": 100 * acdc.partner.mean(-1),
        "non-zero share at the fork": acdc.partner_nonzero.mean(-1),
    },
    index=lost.columns,
)
print(f"trained dense from the start: {100 * runs['dense'].accuracy.mean():.1f}")
display(partner)

# %% [markdown]
# ## The trap: phases that are too short
#
# SGD with momentum forgets its weights in $\tau = (1-\mu)/(\eta\lambda)$ steps. Published runs of AC/DC have phases of
# 1.6 to 3.9 $\tau$. If phases are much shorter, weights that come back do not grow enough to compete, and the support
# may freeze at the first compression. `acdc_phases` warns when it is told the optimizer's numbers. Here: half the learning
# rate and a quarter of the decay, so $\tau$ is eight times longer, and phases half as long; the accuracy of the dense
# network is in the table.

# %%
trap = replace(design, learning_rate=0.1, weight_decay=5e-4, phase=1 if small else 4)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", pruning.ShortPhasesWarning)
    ratio = {
        name: each.phases(
            learning_rate=each.learning_rate, momentum=each.momentum, weight_decay=each.weight_decay
        ).decay_ratio
        for name, each in (("before", design), ("trap", trap))
    }
print(f"phase / tau: {ratio['before']:.2f} before, {ratio['trap']:.2f} now")
print("\n".join(sorted({str(each.message) for each in caught})))
trapped = study.run_many(["AC/DC"] if small else ["dense", "GMP", "AC/DC"], trap, workers, keep)
display(readable(summary(trapped).pivot(index="method", columns="sparsity", values="accuracy")))
print("share of the support replaced, mean over levels, by compression")
print(f"  phase / tau {ratio['before']:.2f}:", *acdc.lost().mean((1, 2)).round(3))
print(f"  phase / tau {ratio['trap']:.2f}:", *trapped["AC/DC"].lost().mean((1, 2)).round(3))

# %% [markdown]
# ## Operations, and measured time
#
# A bound on AC/DC's training cost follows from the phases and the forward cost f of the sparse network: C = (E_d + f
# E_s) / E. What was counted is lower, because dead weights make the dense phases cheaper.

# %%
dense_epochs = design.phases().steps("dense") / design.per_epoch
final = {path: count[-1] for path, count in acdc.nonzero.items()}
rows = []
for i, name in enumerate(percent):
    f = np.mean(
        [design.flops({p: int(n[i, s]) for p, n in final.items()}) / design.flops() for s in range(design.seeds)]
    )
    bound = pruning.accounting.alternation_cost(f, dense=dense_epochs, sparse=design.epochs - dense_epochs)
    rows.append((name, f, bound, acdc.flops()[i].mean()))
display(pd.DataFrame(rows, columns=["sparsity", "f, forward cost", "bound on C", "counted C"]).set_index("sparsity"))

# %% [markdown]
# The runs above are masked dense networks: they save nothing. What saves time is `sparsify`: stored values only, sparse
# kernels, gradients and momentum of the same size. Here one training step of a small ConvNet on digits, compressed, dense
# in XLA, and dense in PyTorch: the same network, weights, batch and optimizer, called in turn, on one thread. The table
# has medians in milliseconds, and how many times as long the dense steps take (the median over rounds of the ratio).
# Other programs on the machine lengthen all of them, so read the ratios, not the milliseconds.

# %%
widths, batch, rounds = ((8, 16), 16, 3) if small else ((64, 128, 256), 128, 15)
with_torch = step_times.has_torch()
compare = memory.cache(step_times.compare)
times = {(level, seed): compare(level, widths, batch, rounds, seed) for level in levels for seed in seeds}
opponents = [step_times.XLA, step_times.PYTORCH] if with_torch else [step_times.XLA]
faster = {
    opponent: np.array([[times[level, seed].faster(opponent) for seed in seeds] for level in levels])
    for opponent in opponents
}
rows = []
for i, level in enumerate(levels):
    of_level = [times[level, seed] for seed in seeds]
    row = {"sparsity": percent[i]}
    row |= {f"{name}, ms": np.median([np.median(each.ms[name]) for each in of_level]) for name in of_level[0].ms}
    row |= {f"faster than {name}": np.median(values[i]) for name, values in faster.items()}
    rows.append(row | {"parameters, of dense": of_level[0].parameters, "momentum, of dense": of_level[0].momentum})
timing = pd.DataFrame(rows).set_index("sparsity")
print(
    f"{sx.cpu_info().isa}, threads {sx.cpu_info().threads}, widths {widths}, batch {batch}, {rounds} rounds, {len(seeds)} seeds"
)
display(timing)
for level, row in timing.iterrows():
    parts = [f"{row[f'faster than {name}']:.1f} times faster than {name} dense" for name in opponents]
    print(f"{level} zeros: {', '.join(parts)}")
if not with_torch:
    print("PyTorch is not installed: the comparison with it is left out.")

# %% [markdown]
# ## Lottery tickets
#
# Train, prune the smallest fifth, rewind to the initial weights, again (`pruning.lottery_tickets`). The rounds are
# short, a quarter of the epochs above, so the numbers compare with each other only; mean over seeds. The control trains
# the same initial weights with masks of the same counts in each layer, but shuffled.

# %%
round_design = replace(design, seeds=1) if small else replace(design, epochs=20, seeds=1)
watched, last = ((), 0.36) if small else ((5, 8, 11, 14), 0.98)
tickets = Parallel(n_jobs=workers)(
    delayed(memory.cache(study.lottery))(round_design, last, watched, seed) for seed in seeds
)
each = pd.concat([pd.DataFrame(rows) for rows in tickets])
display(each.groupby("round").mean().round({"sparsity": 4, "ticket": 1, "shuffled": 1}))

# %% [markdown]
# ## MNIST
#
# The 10,000 test images of MNIST as a data set of their own, 8,000 to train, made 16 x 16 pixels; shifts and noise as
# above, fewer methods and epochs. The folder is `mnist10k` in `SPARSEJAX_DATA`, with `t10k-images-idx3-ubyte.gz` and
# `t10k-labels-idx1-ubyte.gz` of the original distribution; without it this part is left out.

# %%
folder = Path(os.environ.get("SPARSEJAX_DATA", here / ".." / ".." / "shared" / "data")) / "mnist10k"
mnist = {}
if folder.is_dir() and not small:
    mnist_design = study.Design(
        levels=(0.95, 0.98), seeds=5, epochs=12, warmup=1, phase=1, last_dense=1, final_sparse=3,
        source=str(folder), train_images=8000, side=16,
    )  # fmt: skip
    mnist = study.run_many(["dense", "AC/DC", "GMP"], mnist_design, workers, keep)
    display(readable(summary(mnist).pivot(index="method", columns="sparsity", values="accuracy")))
    print("AC/DC, share of the support replaced:", *mnist["AC/DC"].lost().mean((1, 2)).round(3))
else:
    print("left out: reduced run" if small else "left out: no folder mnist10k")

# %% [markdown]
# ## What shows here, and what does not
#
# A finding is a claim that a number is above a margin (0 unless one is given), at each sparsity. Numbers are differences
# between two runs of the same seed, in points of accuracy, unless the finding names another quantity. In brackets: the
# 95 % t interval of the mean over seeds. The finding shows at a sparsity if the whole interval is above the margin, does
# not show if the whole interval is below it, and is unclear otherwise. As a whole it shows, or does not, if that is the
# verdict at every sparsity. First the orderings that the literature reports; then the paper's other claims. Lottery
# tickets have sparsities of their own; a comparison that was not made is marked as exempt.

# %%
numbers = [
    *findings.orderings(runs),
    *findings.of_acdc(acdc, runs["dense"]),
    *findings.of_short_phases(acdc, trapped),
    *findings.of_command(0.9, changes),
    *findings.of_times(levels, faster),
    *findings.of_tickets(tickets),
]
if mnist:
    numbers += findings.ordering(mnist, "AC/DC", "GMP", 0.0, where="MNIST: ")
    numbers += findings.ordering(mnist, "AC/DC", "dense", -1.0, where="MNIST: ")
fixed = [2021, 1, 2, 0, 16, 95, 10000, 8000, 1.6, 3.9]  # numbers of the text that are settings, not results
table = verdicts.show(numbers, fixed)

# %% [markdown]
# What this cannot show: ImageNet, deep networks, the published accuracies. AC/DC and gradual pruning buy their accuracy
# with dense phases: compare the columns *density* and *FLOP* before calling one better than RigL, which never holds
# more than its budget of weights. At the highest sparsity a method is left with a few hundred weights, and seeds spread
# widely. Top-KAST chooses its sets once an epoch and trains without its penalty for exploration, which is less than its
# authors ask for. Masks are never chosen anew after the last step: batch statistics would be those of other weights. The
# intervals are over seeds of the training, on one data set: they say what these networks did.
