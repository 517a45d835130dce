"""How 0.1.0 wrote cadences: ``refresh=every(...)``, ``every=`` with ``end=``. To be removed in 0.3.

Each function has the signature of 0.1.0 and updates the mask at the same steps as it did.
"""

from __future__ import annotations

from typing import Any

import optax

import sparsejax.pruning.methods._gradual as _gradual
import sparsejax.pruning.methods._learned as _learned
import sparsejax.pruning.methods._redistribution as _redistribution
import sparsejax.pruning.methods._sparse_training as _sparse_training
from sparsejax._checks import check_integer, fail
from sparsejax.pruning._method import Method
from sparsejax.pruning.allocation._scopes import ScopeLike, as_scope
from sparsejax.pruning.methods._cadence import Cadence, check_reaches
from sparsejax.pruning.methods._exchange import as_drop, layer_scope
from sparsejax.pruning.schedules import Schedule, cosine, cosine_drop


class Every(Cadence):
    """The result of ``every``."""

    @property
    def delta(self) -> int:
        """The period."""
        return self.update_every

    @property
    def begin(self) -> int:
        """The first update."""
        return self.start

    @property
    def end(self) -> int:
        """The last update."""
        return self.steps()[-1]


def every(delta: int, begin: int, end: int) -> Every:
    """Fire at ``begin``, then every ``delta`` steps, and in any case at ``end``.

    >>> every(300, 0, 1000).steps()
    (0, 300, 600, 900, 1000)
    """
    for operand, value, least in (("delta", delta, 1), ("begin", begin, 0), ("end", end, begin)):
        check_integer("every", operand, value, least)
    return Every(delta, begin, end)


def magnitude(schedule: Schedule, *, refresh: Every, **rest: Any) -> Method:
    """Take ``refresh`` instead of the cadence."""
    return _gradual.magnitude(schedule, **_cadence_of("magnitude", refresh), **rest)


def saliency(schedule: Schedule, *, refresh: Every, **rest: Any) -> Method:
    """Take ``refresh`` instead of the cadence."""
    return _gradual.saliency(schedule, **_cadence_of("saliency", refresh), **rest)


def random_pruning(schedule: Schedule, *, refresh: Every, **rest: Any) -> Method:
    """Take ``refresh`` instead of the cadence."""
    return _gradual.random_pruning(schedule, **_cadence_of("random_pruning", refresh), **rest)


def movement(
    schedule: Schedule, *, refresh: Every, scores_tx: optax.GradientTransformation, scope: ScopeLike = "global"
) -> Method:
    """Follow the scores in every step after the last one of ``refresh``."""
    gate = Cadence(**_cadence_of("movement", refresh))
    check_reaches("movement", schedule, gate.steps()[-1])
    return _learned.Movement(scores_tx, schedule, gate, as_scope("movement", scope), every_step_after=True)


def sparse_evolutionary_training(sparsity: float, *, every: int, end: int, **rest: Any) -> Method:
    """Update every ``every`` steps, before ``end``."""
    steps = _steps_before("sparse_evolutionary_training", every, end)
    return _sparse_training.sparse_evolutionary_training(sparsity, **steps, **rest)


def rigl(sparsity: float, *, end: int, every: int = 100, drop: Schedule | float | None = None, **rest: Any) -> Method:
    """Update every ``every`` steps, before ``end``, where the cosine of the drop fraction ends."""
    steps = _steps_before("rigl", every, end)
    return _sparse_training.rigl(sparsity, drop=cosine_drop(0.3, end) if drop is None else drop, **steps, **rest)


def snfs(sparsity: float, *, every: int, end: int, drop: Schedule | float | None = None, **rest: Any) -> Method:
    """Update every ``every`` steps, before ``end``, where the cosine of the drop fraction ends."""
    steps = _steps_before("snfs", every, end)
    return _redistribution.snfs(sparsity, drop=cosine_drop(0.5, end) if drop is None else drop, **steps, **rest)


def mest(sparsity: float, *, every: int, end: int, **rest: Any) -> Method:
    """Update every ``every`` steps, the last time at ``end``."""
    _check_updates("mest", every, end)
    return _sparse_training.mest(sparsity, update_every=every, start=every, stop=end, **rest)


def granet(
    schedule: Schedule,
    *,
    refresh: Every,
    end: int,
    drop: Schedule | float | None = None,
    scope: ScopeLike = "erk",
    seed: int = 0,
) -> Method:
    """Prune at the steps of ``refresh``, and exchange with its period until ``end``."""
    pruning = Cadence(**_cadence_of("granet", refresh))
    check_reaches("granet", schedule, pruning.steps()[-1])
    if end <= pruning.steps()[-1]:
        fail("granet", "end", f"value {end}", f"a step after the last pruning, {pruning.stop}")
    fraction = cosine(0.5, 0.005, begin=0, end=end) if drop is None else as_drop("granet", drop)
    period, start = pruning.update_every, pruning.start
    exchanges = Cadence(period, start, start + (end - 1 - start) // period * period)
    return _redistribution.GraNet(schedule, layer_scope("granet", scope), pruning, exchanges, fraction, seed)


def _cadence_of(function: str, refresh: object) -> dict[str, Any]:
    if not isinstance(refresh, Every):
        fail(function, "refresh", f"type {type(refresh).__name__}", "a gate, every(...)", error=TypeError)
    return {"update_every": refresh.update_every, "start": refresh.start, "stop": refresh.stop}


def _check_updates(function: str, every: int, end: int) -> None:
    check_integer(function, "every", every)
    check_integer(function, "end", end)
    if end <= every:
        fail(function, "end", f"value {end}", f"more than every = {every}, or nothing is ever replaced")


def _steps_before(function: str, every: int, end: int) -> dict[str, Any]:
    _check_updates(function, every, end)
    return {"update_every": every, "start": every, "stop": (end - 1) // every * every}
