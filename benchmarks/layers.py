"""``layers``: how fast is each layer against other libraries, and against the limits of the machine?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence

from sparsejax._table import text_table

from . import _layer_dtypes, _layer_times, peers
from ._layer_times import LayerTimes
from .cases import _shapes
from .cases._case import BACKWARD, FORWARD, STEP, Case
from .cases._shapes import UNTUNED
from .harness import _peak, _roofline
from .harness._peak import Peak
from .harness._report import BenchmarkReport, milliseconds, percent, progress, times
from .harness._roofline import Limit
from .harness._targets import Outcome, outcome, outcome_table
from .harness._timing import geometric_mean
from .peers.ours import ALONE

PRODUCTS = (FORWARD, BACKWARD, "input_grad", "weight_grad")
_OURS = peers.OURS.name


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Check and time all shapes at all sparsities."""
    others = peers.choose(options.peers)
    bfloat16 = options.dtype == "bfloat16"
    timed = [peers.OURS_BFLOAT16, *others] if bfloat16 else others
    cases = [Case(shape, sparsity) for shape in _shapes.select(options.shapes) for sparsity in options.sparsity]
    peak = _peak.measure(options.threads)
    results = []
    for number, case in enumerate(cases, start=1):
        result = _layer_times.run(case, timed, (*PRODUCTS, STEP), options.rounds)
        results.append(result)
        progress(f"[{number}/{len(cases)}] {_line(result)}")
    limits = [_limits(result, peak) for result in results]
    outcomes = [*summary(results, limits), *(_layer_dtypes.summary(results) if bfloat16 else [])]
    names = [peer.name for peer in others]
    text = "\n\n".join(
        [
            *(f"{title}\n\n{ratio_table(results, names, measure)}" for measure, title in _TITLES.items()),
            *([f"{_layer_dtypes.TITLE}\n\n{_layer_dtypes.table(results)}"] if bfloat16 else []),
            f"Products against the machine ({peak_line(peak)})\n\n{_limit_table(results, limits)}",
            *_remarks(results),
            outcome_table(outcomes),
        ]
    )
    rows = [
        {**r.to_dict(), "limits": {p: dataclasses.asdict(x) for p, x in by_product.items()}}
        for r, by_product in zip(results, limits, strict=True)
    ]
    return BenchmarkReport(
        "layers", text, {"peak": peak, "rows": rows, "geometric_means": means(results, names), "summary": outcomes}
    )


_TITLES = {
    FORWARD: "Forward: milliseconds of ours, and how many times longer the others take",
    STEP: "Forward + both gradients",
}


def _line(result: LayerTimes) -> str:
    ours = result.times[STEP].get(_OURS)
    bad = [f"{name} {status}" for name, status in result.status.items() if status.startswith(("wrong", "failed"))]
    took = f"step {milliseconds(ours.seconds)} ms" if ours else result.status[_OURS]
    ratios = [f"{name} {times(result.ratio(STEP, name))}" for name in result.times[STEP] if name != _OURS]
    return f"{result.case.shape.name} {percent(result.case.sparsity)}: {took}; {', '.join([*ratios, *bad])}"


def ratio_table(results: Sequence[LayerTimes], names: Sequence[str], measure: str) -> str:
    """One line per case: ours between layers and alone, then the peers' ratios; geometric means at the end."""

    def cell(result: LayerTimes, name: str) -> str:
        ratio = result.ratio(measure, name)
        return times(ratio) if ratio is not None else _short(result.status[name])

    rows = []
    for result in results:
        timed = result.times[measure]
        ours = [milliseconds(timed[name].seconds if name in timed else None) for name in (_OURS, ALONE)]
        shape = result.case.shape
        rows.append((shape.name, percent(result.case.sparsity), *ours, *(cell(result, name) for name in names)))
    for sparsity, by_name in means(results, names)[measure].items():
        rows.append((f"geometric mean at {percent(float(sparsity))}", "", "", "", *(times(by_name[n]) for n in names)))
    return text_table(("layer", "sparsity", "ours ms", "alone ms", *names), rows)


def _short(status: str) -> str:
    return "-" if status == _layer_times.OK else status.split(":")[0]


def means(results: Sequence[LayerTimes], names: Sequence[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Geometric means of the ratios by measure, sparsity and peer."""
    sparsities = sorted({result.case.sparsity for result in results})

    def mean(measure: str, sparsity: float, name: str) -> float | None:
        chosen = (r for r in results if r.case.sparsity == sparsity)
        return geometric_mean(_known(r.ratio(measure, name) for r in chosen))

    return {m: {str(s): {n: mean(m, s, n) for n in names} for s in sparsities} for m in (FORWARD, STEP)}


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _limits(result: LayerTimes, peak: Peak) -> dict[str, Limit]:
    timed = {product: result.times[product].get(_OURS) for product in PRODUCTS}
    return {p: _roofline.limit(result.case, p, t.seconds, peak) for p, t in timed.items() if t is not None}


def peak_line(peak: Peak) -> str:
    """The limits in one line."""
    bandwidths = ", ".join(f"{name} {rate / 1e9:.0f} GB/s" for name, rate in peak.read.items())
    return f"{peak.isa}: {peak.flops / 1e9:.0f} GFLOP/s; {bandwidths}"


def _limit_table(results: Sequence[LayerTimes], limits: Sequence[dict[str, Limit]]) -> str:
    rows = []
    for result, by_product in zip(results, limits, strict=True):
        cells = []
        for product in PRODUCTS:
            at = by_product.get(product)
            cells += (
                ["-", "-"] if at is None else [percent(at.peak_fraction), f"{percent(at.limit_fraction)} of {at.limit}"]
            )
        rows.append((result.case.shape.name, percent(result.case.sparsity), *cells))
    titles = [title for product in PRODUCTS for title in (f"{product}: peak", "limit")]
    return text_table(("layer", "sparsity", *titles), rows)


def _remarks(results: Sequence[LayerTimes]) -> list[str]:
    """Return why implementations have no times: each reason once, with its layers."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        for name, status in result.status.items():
            if status != _layer_times.OK:
                reasons.setdefault(f"{name} {status}", []).append(result.case.shape.name)
    lines = []
    for reason, layers in reasons.items():
        where = "" if " absent: " in reason else f" ({', '.join(dict.fromkeys(layers))})"
        lines.append(reason + where)
    return ["\n".join(lines)] if lines else []


def summary(results: Sequence[LayerTimes], limits: Sequence[dict[str, Limit]]) -> list[Outcome]:
    """The rows of the project's targets that this command measures."""
    tuned = [r for r in results if r.case.shape.set != UNTUNED]
    untuned = [r for r in results if r.case.shape.set == UNTUNED and r.case.sparsity >= 0.9]
    paper = [r for r in tuned if r.case.sparsity in (0.9, 0.95)]

    def ratios(chosen: Sequence[LayerTimes], measure: str, *names: str) -> list[float]:
        return _known(r.ratio(measure, *names) for r in chosen)

    def mean(key: str, chosen: Sequence[LayerTimes], measure: str, *names: str) -> Outcome:
        values = ratios(chosen, measure, *names)
        return outcome(key, geometric_mean(values), f"{len(values)} cases")

    def worst(key: str, chosen: Sequence[LayerTimes], measure: str, name: str) -> Outcome:
        measured = [(ratio, r) for r in chosen if (ratio := r.ratio(measure, name)) is not None]
        if not measured:
            return outcome(key, None, "0 cases")
        ratio, slowest = min(measured, key=lambda pair: pair[0])
        return outcome(
            key, ratio, f"{slowest.case.shape.name} at {percent(slowest.case.sparsity)}; {len(measured)} cases"
        )

    return [
        mean("dense 90", [r for r in paper if r.case.sparsity == 0.9], STEP, *peers.DENSE),
        mean("dense 95", [r for r in paper if r.case.sparsity == 0.95], STEP, *peers.DENSE),
        *_alone(paper),
        mean("sparseprop", paper, STEP, "sparseprop"),
        worst("sparseprop worst", paper, STEP, "sparseprop"),
        mean("mkl", paper, FORWARD, "mkl", "torch_csr"),
        mean("deepsparse", paper, FORWARD, "deepsparse"),
        *(_rate(kind, list(zip(results, limits, strict=True))) for kind in ("conv", "linear")),
        worst("untuned xla", untuned, STEP, "xla"),
        worst("untuned xla forward", untuned, FORWARD, "xla"),
        worst("untuned sparseprop", untuned, STEP, "sparseprop"),
    ]


def _alone(cases: Sequence[LayerTimes]) -> list[Outcome]:
    """How fast layers are where nothing but row-major activations surrounds them."""
    outcomes, slowest = [], outcome("alone slowest", None, "0 cases")
    for percents, sparsity in ((90, 0.9), (95, 0.95)):
        timed = [(r, ratio) for r in cases if r.case.sparsity == sparsity and (ratio := r.ratio(STEP, ALONE))]
        dense = {r.case.shape.name: d / ratio for r, ratio in timed if (d := r.ratio(STEP, *peers.DENSE))}
        over = f"{len(timed)} cases"
        outcomes.append(outcome(f"alone {percents}", geometric_mean([1 / ratio for _, ratio in timed]), over))
        outcomes.append(outcome(f"alone dense {percents}", geometric_mean(list(dense.values())), f"{len(dense)} cases"))
        if dense and percents == 90:
            name = min(dense, key=lambda name: dense[name])
            slowest = outcome("alone slowest", dense[name], f"{name}; {len(dense)} cases")
    return [*outcomes, slowest]


def _rate(kind: str, cases: Sequence[tuple[LayerTimes, dict[str, Limit]]]) -> Outcome:
    """Share of FMA peak over forward and backward together, of layers at 90 % whose data stay in a cache."""
    chosen = [
        limits
        for result, limits in cases
        if result.case.shape.kind == kind
        and result.case.shape.set != UNTUNED
        and result.case.sparsity == 0.9
        and len(limits) == len(PRODUCTS)
        and all(limit.resident != _peak.MEMORY for limit in limits.values())
    ]
    # Backward does twice the work of forward.
    shares = [3 / (1 / limits[FORWARD].peak_fraction + 2 / limits[BACKWARD].peak_fraction) for limits in chosen]
    mean = geometric_mean(shares)
    each = ", ".join(f"{p} {percent(geometric_mean([x[p].peak_fraction for x in chosen]))}" for p in PRODUCTS)
    return outcome(f"{kind} flops", None if mean is None else 100 * mean, f"{len(chosen)} layers; {each}")
