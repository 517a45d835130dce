"""The plan and the numbers of a run as text."""

from __future__ import annotations

from sparsejax import pruning
from sparsejax._table import text_table
from sparsejax.train.plans._plan import Plan
from sparsejax.train.results._flops import FlopCounter
from sparsejax.train.results._ratios import ratio_text
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._step_cost import StepComparison, StepCost


def plan_text(plan: Plan, report: pruning.PruningReport | None, flops: FlopCounter) -> str:
    """What a run will do: steps per kind of phase, room for the weights that each pruned layer keeps, operations.

    Args:
      plan: its phases.
      report: what the method says about each leaf; None for a dense run.
      flops: counts the operations of its network.
    """
    steps: dict[str, int] = {}
    for phase in plan.phases:
        steps[phase.name] = steps.get(phase.name, 0) + phase.stop - phase.start
    lines = [f"{plan.total} steps: " + ", ".join(f"{count} {name}" for name, count in steps.items())]
    if report is not None:
        rows = [
            (row.path, "x".join(map(str, row.shape)), f"{row.size:,}", f"{row.kept:,}", row.capacity.kind)
            for row in report.rows
            if row.capacity is not None
        ]
        lines.append(text_table(("pruned layer", "shape", "weights", "kept", "capacity"), rows))
        relative = flops.planned(report) / flops.dense
        # While the sparsity rises, the weights count as dense: an upper bound.
        sparse = steps.get("sparse", 0) + steps.get("update", 0)
        cost = pruning.accounting.alternation_cost(relative, dense=plan.total - sparse, sparse=sparse)
        lines.append(f"FLOP against dense: forward pass of the sparse network {relative:.2f}, training {cost:.2f}")
    return "\n".join([*lines, plan.remark]) if plan.remark else "\n".join(lines)


def result_table(result: TrainResult, dense: TrainResult | None = None) -> str:
    """Tables of what a run cost: by kind of phase, and against dense training.

    Args:
      result: of the run.
      dense: of a dense run of the same length; None leaves its accuracy and wall time out.
    """
    phases = [
        (name, str(time.steps), f"{time.seconds:.1f}", f"{time.median_ms:.2f}") for name, time in result.phases.items()
    ]
    text = text_table(("phase", "steps", "seconds", "ms per step"), phases)
    rows = [("test accuracy", percent(result.accuracy), percent(dense and dense.accuracy), "")]
    if result.partner is not None:
        rows.append(("dense partner's accuracy", percent(result.partner.accuracy), "", ""))
    if dense is not None:
        rows += [
            _less("wall time, s", result.seconds, dense.seconds, ".1f"),
            _less("steps x median, s", result.steady_seconds, dense.steady_seconds, ".1f"),
        ]
    rows.append(_less("training FLOP", result.training_flops, result.dense_training_flops, ".3g"))
    if result.comparison is not None:
        step = result.comparison
        rows.append(("last phase, ms per step", f"{step.sparse.ms:.2f}", f"{step.dense.ms:.2f}", step_ratio(step)))
        for name, key in _BYTES.items():
            rows.append(_smaller(name, result.bytes[key], getattr(step.dense, key)))
        rows.append(_smaller("all three", sum(result.bytes.values()), _all(step.dense)))
    return f"{text}\n\n{text_table(('', 'this run', 'dense', ''), rows)}"


_BYTES = {"parameters": "parameter_bytes", "pattern": "pattern_bytes", "optimizer state": "optimizer_bytes"}


def percent(fraction: float | None) -> str:
    """Return a fraction in percent with two decimals, "-" for None."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _less(name: str, value: float, dense: float, form: str) -> tuple[str, str, str, str]:
    return name, format(value, form), format(dense, form), f"{value / dense:.2f} of dense"


def _smaller(name: str, value: int, dense: int) -> tuple[str, str, str, str]:
    name, dense_text, text, ratio = _memory(name, dense, value)
    return name, text, dense_text, ratio


def comparison_table(comparison: StepComparison, accuracies: tuple[float | None, float | None]) -> str:
    """Table of what a dense and a sparse model cost, and how well they do.

    Args:
      comparison: the training step on both.
      accuracies: fraction correct of the dense model (None if none was trained) and of the sparse one.
    """
    dense, sparse = comparison.dense, comparison.sparse
    accuracy = tuple(map(percent, accuracies))
    rows = [
        ("test accuracy", *accuracy, ""),
        ("ms per training step", f"{dense.ms:.2f}", f"{sparse.ms:.2f}", step_ratio(comparison)),
        _memory("parameters", dense.parameter_bytes, sparse.parameter_bytes),
        _memory("pattern", dense.pattern_bytes, sparse.pattern_bytes),
        _memory("optimizer state", dense.optimizer_bytes, sparse.optimizer_bytes),
        _memory("all three", _all(dense), _all(sparse)),
    ]
    return text_table(("", "dense", "sparse", ""), rows)


def step_ratio(comparison: StepComparison) -> str:
    """Say how the two steps compare, with quartiles where every pair of them was kept."""
    return ratio_text(comparison.ratios or (comparison.speedup,))


def _all(cost: StepCost) -> int:
    return cost.parameter_bytes + cost.pattern_bytes + cost.optimizer_bytes


def _memory(name: str, dense: int, sparse: int) -> tuple[str, str, str, str]:
    ratio = f"{dense / sparse:.2f}x smaller" if dense else ""
    return name, f"{dense / 1024:,.0f} KiB", f"{sparse / 1024:,.0f} KiB", ratio
