"""``rule``: fit the cost model of ``sparsify(policy="rule")``, and how often does it pick what was measured faster?"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsejax._checks import fail
from sparsejax._table import text_table
from sparsejax.nn.cost_model import Work

from . import _fit_rule, peers
from ._fit_rule import Observation
from .cases._case import STEP
from .cases._shapes import Shape
from .harness._report import BenchmarkReport, percent, times
from .harness._timing import geometric_mean

_DENSE, _SPARSE = "xla", peers.OURS.name


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The rule against the measurements, over the layers of one kind.

    Attributes:
      kind: of the layers, or "all".
      cases: layers and sparsities that could be predicted.
      agree: fraction where predicted and measured choice are the same.
      loss: geometric mean, over the cases where they differ, of (time of the rule's choice / time of the other).
      always_sparse: fraction of cases where the sparse layer was measured faster, which a rule without a model reaches.
    """

    kind: str
    cases: int
    agree: float | None
    loss: float | None
    always_sparse: float | None


def run(options: argparse.Namespace) -> BenchmarkReport:
    """Fit to the JSON of ``layers``, and judge by fits that leave out the shape they predict."""
    observations = [o for path in options.sources for o in read(Path(path))]
    coefficients = _fit_rule.fit(observations)
    fitted = [_fit_rule.predicted_ratio(o.work, coefficients) for o in observations]
    unseen = _fit_rule.left_out(observations)
    agreement = {"left out": agreements(observations, unseen), "fitted": agreements(observations, fitted)}
    titles = {
        "left out": "Choice of the rule against the measured one; each shape predicted by a fit to all other shapes",
        "fitted": "The same on the shapes that were fitted",
    }
    tables = [f"{titles[name]}\n\n{_agreement_table(rows)}" for name, rows in agreement.items()]
    rows = [
        {"name": o.name, "sparsity": o.sparsity, "kind": o.work.kind, "measured": o.ratio, "fitted": f, "left_out": u}
        for o, f, u in zip(observations, fitted, unseen, strict=True)
    ]
    text = "\n\n".join(["For sparsejax/nn/cost_model.py", _fit_rule.text(coefficients), *tables])
    return BenchmarkReport("rule", text, {"coefficients": coefficients, "agreement": agreement, "rows": rows})


def read(path: Path) -> list[Observation]:
    """Layers that were timed in both forms, from the JSON of ``sparsejax bench layers``.

    Raises:
      ValueError: not such a file, or one without times of ours and XLA's step.
    """
    try:
        rows = json.loads(path.read_text())["rows"]
        timed = [row for row in rows if {_SPARSE, _DENSE} <= row["times"].get(STEP, {}).keys()]
        observations = [_observation(row) for row in timed]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        got = f"content that cannot be read ({type(error).__name__}: {error})"
        fail("rule", f"'{path}'", got, "the JSON of 'sparsejax bench layers'")
    if not observations:
        hint = "Measure with --peers xla."
        fail("rule", f"'{path}'", f"no row with times of {_SPARSE} and {_DENSE}", "one or more", hint)
    return observations


def _observation(row: dict[str, Any]) -> Observation:
    shape = Shape(**{field.name: row[field.name] for field in dataclasses.fields(Shape)})
    step = row["times"][STEP]
    return Observation(
        shape.name,
        row["sparsity"],
        Work(shape.kernel, row["nnz"], shape.x, shape.y, shape.stride > 1),
        {"dense": step[_DENSE]["seconds"], "sparse": step[_SPARSE]["seconds"]},
        step[_DENSE]["ratio"]["median"],
    )


def agreements(observations: Sequence[Observation], ratios: Sequence[float | None]) -> list[Agreement]:
    """Agreement per kind of layer and over all, where there is a prediction."""
    known = [(o, ratio) for o, ratio in zip(observations, ratios, strict=True) if ratio is not None]
    kinds = [*sorted({o.work.kind for o, _ in known}), "all"]
    return [_agreement(kind, [pair for pair in known if kind in ("all", pair[0].work.kind)]) for kind in kinds]


def _agreement(kind: str, known: Sequence[tuple[Observation, float]]) -> Agreement:
    losses = [math.exp(abs(math.log(o.ratio))) for o, ratio in known if (ratio > 1) != (o.ratio > 1)]
    cases = len(known)
    return Agreement(
        kind=kind,
        cases=cases,
        agree=1 - len(losses) / cases if cases else None,
        loss=geometric_mean(losses),
        always_sparse=sum(o.ratio > 1 for o, _ in known) / cases if cases else None,
    )


def _agreement_table(rows: Sequence[Agreement]) -> str:
    cells = [(r.kind, str(r.cases), percent(r.agree), times(r.loss), percent(r.always_sparse)) for r in rows]
    return text_table(("layers", "cases", "agree", "slower where not", "always sparse would"), cells)
