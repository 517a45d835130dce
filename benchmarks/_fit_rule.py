"""Fitting the coefficients of ``sparsejax.nn.cost_model`` to measured layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sparsejax.nn.cost_model import Work, dense_terms, seconds, sparse_terms

FORMS: dict[str, Callable[[Work], dict[str, float]]] = {"dense": dense_terms, "sparse": sparse_terms}

# A term that is nowhere a larger share of the time does not count.
_LEAST_SHARE = 1e-3

# By kind of layer, then form, then term: nanoseconds per unit.
Table = dict[str, dict[str, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class Observation:
    """One layer that was measured.

    Attributes:
      name: of the shape; its sparsities share it.
      sparsity: fraction of zeros.
      work: what the layer computes.
      seconds: by form, of forward and both gradients.
      ratio: dense time over sparse time, the median within rounds.
    """

    name: str
    sparsity: float
    work: Work
    seconds: dict[str, float]
    ratio: float


def fit(observations: Iterable[Observation]) -> Table:
    """Coefficients per kind of layer."""
    by_kind: dict[str, list[Observation]] = {}
    for observation in observations:
        by_kind.setdefault(observation.work.kind, []).append(observation)
    return {
        kind: {
            form: coefficients([terms(o.work) for o in measured], [o.seconds[form] for o in measured])
            for form, terms in FORMS.items()
        }
        for kind, measured in sorted(by_kind.items())
    }


def coefficients(terms: Sequence[dict[str, float]], times: Sequence[float]) -> dict[str, float]:
    """Non-negative nanoseconds per unit with the smallest squared errors of the logarithm of time.

    Logarithms, because a decision needs ratios: a factor of two too slow is as bad as one too fast, in a layer of
    microseconds as in one of seconds. Least squares of relative errors, which are linear, give the start.

    Args:
      terms: one dictionary per measurement, all with the same keys.
      times: seconds of each.

    >>> fitted = coefficients([{"call": 1.0, "work": n} for n in (10.0, 1e3, 1e5)], [12e-9, 210e-9, 20010e-9])
    >>> {name: round(value, 3) for name, value in fitted.items()}
    {'call': 10.0, 'work': 0.2}
    """
    from scipy.optimize import least_squares, nnls

    names = list(terms[0])
    # Rows over time, so that each unknown is a share of measured times; columns to one size, for the solvers.
    rows = np.array([[t[name] for name in names] for t in terms]) / (1e9 * np.array(times)[:, None])
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0  # a term that no measurement has
    rows /= scale
    start, _ = nnls(rows, np.ones(len(rows)))
    start = np.maximum(start, 1e-6)  # the solver below wants a point inside the bounds
    solution = least_squares(lambda c: np.log(rows @ c), start, bounds=(0, np.inf), x_scale=start)
    # Scaled coefficients are largest shares of a measured time; the solver stays inside the bounds, so that what should
    # be nothing is nearly nothing.
    values = np.where(solution.x > _LEAST_SHARE, solution.x, 0.0) / scale
    return {name: float(f"{value:.3g}") for name, value in zip(names, values, strict=True)}


def predicted_ratio(work: Work, table: Table) -> float | None:
    """Dense time over sparse time, None for a kind of layer that the table does not have."""
    if work.kind not in table:
        return None
    dense, sparse = (seconds(terms(work), table[work.kind][form]) for form, terms in FORMS.items())
    return dense / sparse


def left_out(observations: Sequence[Observation]) -> list[float | None]:
    """Predicted ratio of each observation by a fit that has not seen its shape, at no sparsity."""
    kinds = {o.name: o.work.kind for o in observations}
    tables = {
        name: fit(o for o in observations if o.name != name and o.work.kind == kind) for name, kind in kinds.items()
    }
    return [predicted_ratio(o.work, tables[o.name]) for o in observations]


def text(table: Table) -> str:
    """The table as the lines of source that ``cost_model.py`` holds."""
    lines = ["COEFFICIENTS: dict[str, dict[str, dict[str, float]]] = {"]
    for kind, forms in table.items():
        lines.append(f'    "{kind}": {{')
        for form, values in forms.items():
            lines.append(f'        "{form}": {{')
            lines += [f'            "{name}": {value!r},' for name, value in values.items()]
            lines.append("        },")
        lines.append("    },")
    return "\n".join([*lines, "}"])
