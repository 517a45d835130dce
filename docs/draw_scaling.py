"""Fit the cost model of docs/scaling.md, print its tables and draw its chart: ``python docs/draw_scaling.py``.

It reads what these commands measured on one machine of two cores:

    python -m sparsejax_bench.processes --json benchmarks/results/processes.json
    python -m sparsejax_bench.data_loading --json benchmarks/results/data_loading.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "benchmarks" / "results"
# Assumed, not measured: 10 Gbit/s of which four fifths are payload, and the delay of a hop between two machines.
NETWORK_BYTES_PER_S, NETWORK_DELAY_S = 0.8 * 1.25e9, 50e-6
CORES = (1, 2, 4, 8, 16, 32, 64)
MACHINES = (1, 2, 4, 8, 16)
COLOURS = {"sparse": "#3b5ba9", "dense": "#c44536"}


@dataclass(frozen=True)
class Link:
    """What a ring needs for a sum over processes: each of 2 (p - 1) hops waits, and 2 (p - 1) / p of the bytes go out.

    Attributes:
      delay_s: of a pair of hops, as two processes measure it.
      bytes_per_s: of one process.
    """

    delay_s: float
    bytes_per_s: float

    def seconds(self, size: float, processes: int) -> float:
        """Return the time of an all-reduce of so many bytes."""
        if processes == 1:
            return 0.0
        return (processes - 1) * self.delay_s + 2 * (processes - 1) / processes * size / self.bytes_per_s


NETWORK = Link(2 * NETWORK_DELAY_S, NETWORK_BYTES_PER_S)


@dataclass(frozen=True)
class Form:
    """A network and its step.

    Attributes:
      work_s: time of a step of the whole batch on one core.
      serial: part of it that more threads of one process do not shorten.
      size: bytes of its gradient.
    """

    work_s: float
    serial: float
    size: float

    def step_s(self, link: Link, processes: int, threads: int = 1) -> float:
        """Return the time of a step on one machine."""
        compute = self.work_s / processes * (self.serial + (1 - self.serial) / threads)
        return compute + link.seconds(self.size, processes)

    def cluster_s(self, link: Link, machines: int, processes: int) -> float:
        """Return the time of a step on machines of so many processes of one core: one ring over all of them."""
        total = machines * processes
        compute = self.work_s / total
        if machines == 1:
            return compute + link.seconds(self.size, total)
        return compute + NETWORK.seconds(self.size, total)


def fitted(found: dict[str, Any]) -> tuple[Link, dict[str, Form]]:
    """Fit delay and bandwidth to the sums over two processes, and work and serial part to the steps."""
    two = [row for row in found["all_reduce"] if row["processes"] == 2]
    sent = np.array([row["bytes"] for row in two], float)
    taken = np.array([row["s"]["median"] for row in two])
    weight = 1 / taken  # relative errors count
    (delay, slope), *_ = np.linalg.lstsq(np.stack([weight, sent * weight], 1), taken * weight, rcond=None)
    link = Link(max(float(delay), 1e-6), 1 / max(float(slope), 1e-12))
    sizes = {row["gradient"]: 4 * row["numbers"] for row in two}
    forms = {}
    for row in found["step"]:
        one, both, size = row["one"]["median"], row["two"]["median"], sizes[row["form"]]
        work = 2 * max(both - link.seconds(size, 2), both / 10)
        forms[row["form"]] = Form(work, float(np.clip(2 * one / work - 1, 0, 1)), size)
    return link, forms


def tables(link: Link, forms: dict[str, Form], pictures_per_s: float, batch: int) -> str:
    """The tables of the page."""
    lines = ["| fitted | |", "| --- | --- |"]
    lines += [f"| delay of a sum over two processes here | {1e6 * link.delay_s:,.0f} µs |"]
    lines += [f"| bandwidth between two processes here | {link.bytes_per_s / 1e9:.2f} GB/s |"]
    for name, form in forms.items():
        lines += [f"| work of a {name} step, one core | {1e3 * form.work_s:,.0f} ms |"]
        lines += [f"| part of it that threads do not shorten, {name} | {form.serial:.2f} |"]
        lines += [f"| gradient, {name} | {form.size / 1e6:.2f} MB |"]
    lines += [f"| pictures read per second and thread | {pictures_per_s:,.0f} |", ""]
    lines += ["| one machine, cores | sparse, threads | sparse, processes | dense, threads | dense, processes |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for cores in CORES:
        cells = []
        for name in COLOURS:
            cells += [forms[name].step_s(link, 1, cores), forms[name].step_s(link, cores)]
        lines.append(f"| {cores} | " + " | ".join(f"{1e3 * cell:,.1f} ms" for cell in cells) + " |")
    lines += ["", "| machines of 4 cores | sparse | of it all-reduce | dense | of it all-reduce |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for machines in MACHINES:
        cells = []
        for name in COLOURS:
            step = forms[name].cluster_s(link, machines, 4)
            share = 1 - forms[name].work_s / (4 * machines) / step
            cells += [f"{1e3 * step:,.1f} ms", f"{100 * share:.0f} %"]
        lines.append(f"| {machines} | " + " | ".join(cells) + " |")
    lines += ["", *takeovers(link, forms, pictures_per_s, batch)]
    return "\n".join(lines)


def takeovers(link: Link, forms: dict[str, Form], pictures_per_s: float, batch: int) -> list[str]:
    """At which sizes another term becomes the largest."""
    lines = []
    for name, form in forms.items():
        for place, way in (("one machine", link), ("10 Gbit/s", NETWORK)):
            counts = range(2, 4097)
            first = next((p for p in counts if way.seconds(form.size, p) > form.work_s / p), None)
            said = f"from {first} processes on" if first else "not up to 4,096 processes"
            lines.append(f"- {name}, {place}: the all-reduce takes longer than the computing {said}.")
        threads = form.work_s / batch * pictures_per_s
        lines.append(f"- {name}: one reading thread feeds {threads:,.1f} computing cores.")
    return lines


def chart(link: Link, forms: dict[str, Form]) -> Figure:
    """Time of the all-reduce against the processes, and of a step against the cores."""
    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = drawing.subplots(1, 2)
    counts = [2, 4, 8, 16, 32, 64]
    for name, form in forms.items():
        left.plot(counts, [1e3 * NETWORK.seconds(form.size, p) for p in counts], "o-", color=COLOURS[name], label=name)
        left.plot(counts, [1e3 * link.seconds(form.size, p) for p in counts], "o--", color=COLOURS[name], ms=3)
        right.plot(CORES, [1e3 * form.step_s(link, p) for p in CORES], "o-", color=COLOURS[name], label=name)
        right.plot(CORES, [1e3 * form.step_s(link, 1, p) for p in CORES], "o--", color=COLOURS[name], ms=3)
    left.set(xlabel="processes", ylabel="all-reduce, ms", title="solid: 10 Gbit/s (assumed); dashed: one machine")
    right.set(xlabel="cores of one machine", ylabel="step, ms", title="solid: one process per core; dashed: threads")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.title.set_fontsize(9)
    return drawing


def main() -> None:
    """Print the tables, and write ``docs/charts/scaling.svg``."""
    rcParams["svg.hashsalt"] = "sparsejax"  # the same bytes from the same numbers
    found = json.loads((RESULTS / "processes.json").read_text())
    reading = json.loads((RESULTS / "data_loading.json").read_text())
    rates = {row["loader"]: row["pictures_per_s"]["median"] for row in reading["throughput"]}
    link, forms = fitted(found)
    print(tables(link, forms, rates["no worker"], found["setting"]["batch"]))
    chart(link, forms).savefig(HERE / "charts" / "scaling.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
