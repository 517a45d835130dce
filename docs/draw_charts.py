"""Draw the charts of docs/performance.md from the JSON of ``sparsejax bench``: ``python docs/draw_charts.py``.

Each chart answers one question, and is drawn from one file in ``benchmarks/results``:

    sparsejax bench layers --peers xla torch --sparsity 0.5 0.8 0.9 0.95 0.98 \
        --shapes r18-256x14 mlp-1024-1024 mb-512-512 --json benchmarks/results/sparsity.json
    sparsejax bench layers --peers xla torch --shapes resnet18 resnet50 mobilenet transformer mlp \
        --json benchmarks/results/networks.json
    sparsejax bench layers --dtype bfloat16 --peers torch torch_autocast torch_bfloat16 \
        --shapes resnet18 transformer mlp --json benchmarks/results/types.json
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "benchmarks" / "results"
CHARTS = HERE / "charts"
NAMES = {
    "r18-256x14": "3 x 3 convolution, 256 channels",
    "mb-512-512": "pointwise convolution, 512 channels",
    "mlp-1024-1024": "linear layer, 1024 x 1024",
}
# What a bar compares: theirs, the fastest counts, and our layer; "sparsejax" is ours in float32 between sparse layers.
NETWORK_BARS = {
    "over XLA dense": (("xla",), "sparsejax"),
    "over PyTorch dense": (("torch",), "sparsejax"),
    "a layer alone, over PyTorch dense": (("torch",), "alone"),
}
TYPE_BARS = {
    "float32, over PyTorch float32": (("torch",), "sparsejax"),
    "bfloat16, over PyTorch bfloat16 (AMX)": (("torch_bfloat16", "torch_autocast"), "sparsejax_bfloat16"),
    "bfloat16, over PyTorch float32": (("torch",), "sparsejax_bfloat16"),
}
SETS = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "mobilenet": "MobileNet",
    "transformer": "transformers",
    "mlp": "MLPs",
}
Bars = dict[str, tuple[tuple[str, ...], str]]
COLOURS = ("#3b5ba9", "#c44536", "#2a9d8f")


def prepare(axes: Any) -> None:
    """Draw the line at which nothing is gained, and take away what a reader does not need."""
    axes.axhline(1, color="#888888", lw=1, ls="--")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def by_sparsity(document: dict[str, Any]) -> Figure:
    """Speedup of a training step against the sparsity, one line per layer."""
    drawing = Figure(figsize=(7, 3.6), layout="constrained")
    axes = drawing.subplots()
    prepare(axes)
    axes.set_ylabel("speedup over the faster of\nXLA dense and PyTorch dense")
    rows = sorted(document["rows"], key=lambda row: (row["name"], row["sparsity"]))
    for colour, (name, group) in zip(COLOURS, groupby(rows, key=lambda row: row["name"]), strict=True):
        points = [
            (100 * row["sparsity"], _speedup(row["times"]["step"], ("xla", "torch"), "sparsejax")) for row in group
        ]
        axes.plot(*zip(*points, strict=True), "o-", color=colour, ms=4, label=NAMES.get(name, name))
    axes.set_xlabel("weights pruned, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return drawing


def by_network(document: dict[str, Any]) -> Figure:
    """Speedup of a training step of a layer, geometric means over the layers of each network, at 90 and 95 %."""
    return _bars(document["rows"], NETWORK_BARS)


def by_type(document: dict[str, Any]) -> Figure:
    """The same for float32 and bfloat16."""
    return _bars(document["rows"], TYPE_BARS)


def _bars(rows: list[dict[str, Any]], bars: Bars) -> Figure:
    drawing = Figure(figsize=(7, 3.4), layout="constrained")
    networks = means_of_rows(rows, bars)
    for axes, sparsity in zip(drawing.subplots(1, 2, sharey=True), ("0.9", "0.95"), strict=True):
        prepare(axes)
        for number, label in enumerate(bars):
            places = [place + 0.27 * (number - 1) for place in range(len(networks))]
            drawn = axes.bar(places, [of[sparsity][label] for of in networks.values()], 0.25, label=label)
            axes.bar_label(drawn, fmt="%.1f", fontsize=7, color="#444444")
            for bar in drawn:
                bar.set_color(COLOURS[number])
        axes.set_xticks(range(len(networks)), list(networks), rotation=25, ha="right")
        axes.set_title(f"{100 * float(sparsity):.0f} % of the weights pruned", fontsize=10)
    drawing.axes[0].set_ylabel("speedup of a training step")
    drawing.axes[0].legend(frameon=False, fontsize=8)
    return drawing


def means_of_rows(rows: list[dict[str, Any]], bars: Bars) -> dict[str, dict[str, dict[str, float]]]:
    """Geometric means by network, sparsity and bar, from the rows of ``bench layers``."""
    networks: dict[str, dict[str, dict[str, float]]] = {}
    groups = [group for group in SETS if any(row["set"] == group for row in rows)]
    for group, sparsity, (label, (theirs, ours)) in itertools.product(groups, ("0.9", "0.95"), bars.items()):
        chosen = [row["times"]["step"] for row in rows if row["set"] == group and str(row["sparsity"]) == sparsity]
        logs = [math.log(_speedup(times, theirs, ours)) for times in chosen]
        networks.setdefault(SETS[group], {}).setdefault(sparsity, {})[label] = math.exp(sum(logs) / len(logs))
    return networks


def _speedup(times: dict[str, Any], theirs: tuple[str, ...], ours: str) -> float:
    """All ratios of a row are to ours in float32 between sparse layers."""
    own = 1.0 if ours == "sparsejax" else times[ours]["ratio"]["median"]
    return min(times[peer]["ratio"]["median"] for peer in theirs) / own


QUESTIONS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "sparsity": by_sparsity,
    "networks": by_network,
    "types": by_type,
}


def main() -> None:
    """Draw every chart whose file is there."""
    rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "sparsejax", "font.size": 10}
    )  # the same bytes from the same numbers
    CHARTS.mkdir(exist_ok=True)
    for name, draw in QUESTIONS.items():
        source = RESULTS / f"{name}.json"
        if source.exists():
            draw(json.loads(source.read_text())).savefig(CHARTS / f"{name}.svg", metadata={"Date": None})
            print(f"{source.name} -> charts/{name}.svg")


if __name__ == "__main__":
    main()
