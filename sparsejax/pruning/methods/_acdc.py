"""AC/DC: phases of dense and sparse training, and the method that alternates between them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax._checks import check_integer, fail
from sparsejax._typing import PyTree
from sparsejax.pruning._method import Method, View, branch
from sparsejax.pruning._state import PrunedState, get_mask
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Capacity, Scope, ScopeLike, as_scope, capacities
from sparsejax.pruning.methods._cadence import Fires, Step

_SHORT = 0.5


class ShortPhasesWarning(UserWarning):
    """Phases of AC/DC are much shorter than the time in which SGD forgets its weights."""


class Phase(NamedTuple):
    """A phase: ``kind`` "dense" or "sparse", in force for the steps ``start`` to ``stop - 1``."""

    kind: Literal["dense", "sparse"]
    start: int
    stop: int


@dataclass(frozen=True)
class PhaseList:
    """Phases that follow each other, the first dense, the last sparse; built by ``acdc_phases``.

    Attributes:
      phases: in order; they alternate.
      decay_ratio: length of the shortest inner phase over the time in which SGD forgets, or None if unknown.
    """

    phases: tuple[Phase, ...]
    decay_ratio: float | None = None

    @property
    def switches(self) -> tuple[int, ...]:
        """First step of every phase but the first."""
        return tuple(phase.start for phase in self.phases[1:])

    @property
    def total(self) -> int:
        """Steps of all phases."""
        return self.phases[-1].stop

    @property
    def last_dense(self) -> Phase:
        """The last dense phase."""
        return self.phases[-2]

    def at(self, step: int) -> Phase:
        """Phase of a step; past the end it is the last one."""
        return next((phase for phase in self.phases if step < phase.stop), self.phases[-1])

    def steps(self, kind: Literal["dense", "sparse"]) -> int:
        """Steps in all phases of a kind."""
        return sum(phase.stop - phase.start for phase in self.phases if phase.kind == kind)

    def __iter__(self) -> Iterator[Phase]:
        """Iterate over the phases."""
        return iter(self.phases)

    def __str__(self) -> str:
        """Return a line per phase, and the ratio of phase to forgetting time."""
        lines = [f"{phase.kind:6} {phase.start} - {phase.stop - 1}" for phase in self.phases]
        ratio = "" if self.decay_ratio is None else f"\nphase / decay time: {self.decay_ratio:.2f}"
        return "\n".join(lines) + ratio


def phase_list(function: str, phases: PhaseList | Sequence[Phase]) -> PhaseList:
    """Return checked phases.

    Raises:
      ValueError: they overlap, leave a gap, do not alternate, do not start dense at step 0 or do not end sparse.
    """
    if isinstance(phases, PhaseList):
        return phases
    listed = tuple(Phase(*phase) for phase in phases)
    if not listed:
        fail(function, "phases", "no element", "a dense phase, then a sparse one, ...")
    for phase in listed:
        if phase.kind not in ("dense", "sparse") or not 0 <= phase.start < phase.stop:
            fail(function, "phases", f"{phase}", "kind 'dense' or 'sparse' and 0 <= start < stop")
    for before, after in itertools.pairwise(listed):
        if before.stop != after.start:
            what = "overlapping phases" if before.stop > after.start else "a gap"
            fail(function, "phases", f"{what}, {before} and {after}", "each to start where the one before stops")
        if before.kind == after.kind:
            fail(function, "phases", f"two {before.kind} phases in a row, {before} and {after}", "one longer phase")
    if listed[0].kind != "dense" or listed[0].start != 0:
        fail(function, "phases", f"first phase {listed[0]}", "a dense phase from step 0")
    if listed[-1].kind != "sparse":
        fail(function, "phases", f"last phase {listed[-1]}", "a sparse phase at the end")
    return PhaseList(listed)


def acdc_phases(
    *,
    total: int,
    warmup: int,
    sparse: int,
    dense: int,
    last_dense: int,
    final_sparse: int,
    steps_per_unit: int = 1,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    weight_decay: float | None = None,
) -> PhaseList:
    """Lay out the phases of AC/DC: warm-up, alternation, a last dense and a final sparse phase of their own lengths.

    dense ``warmup``; then sparse, dense, sparse, ..., sparse; dense ``last_dense``; sparse ``final_sparse``

    The alternation fills the steps that the other three leave; its last sparse phase is cut short if it does not fit.

    Args:
      total, warmup, sparse, dense, last_dense, final_sparse: lengths in units, usually epochs; at least 1 each.
      steps_per_unit: optimizer steps in a unit.
      learning_rate: peak; with ``weight_decay`` it gives tau = (1 - momentum) / (learning_rate * weight_decay), the
        steps in which SGD forgets its weights. A phase much shorter than tau leaves weights that come back too small
        to compete, and the support freezes at the first compression; published runs have phases of 1.6 to 3.9 tau.
      momentum: of SGD; for AdamW (decoupled decay) leave it 0.
      weight_decay: coefficient of the L2 penalty.

    Returns:
      ``PhaseList`` in optimizer steps; print it.

    Raises:
      ValueError: a length below 1, or lengths that do not fit together.

    Warns:
      ShortPhasesWarning: phases shorter than half of tau.

    Source: Peste et al. 2021, "AC/DC", section 5 and the authors' configurations.

    >>> print(acdc_phases(total=100, warmup=10, sparse=20, dense=20, last_dense=10, final_sparse=20))
    dense  0 - 9
    sparse 10 - 29
    dense  30 - 49
    sparse 50 - 69
    dense  70 - 79
    sparse 80 - 99
    """
    lengths = {
        "total": total,
        "warmup": warmup,
        "sparse": sparse,
        "dense": dense,
        "last_dense": last_dense,
        "final_sparse": final_sparse,
        "steps_per_unit": steps_per_unit,
    }
    for name, value in lengths.items():
        check_integer("acdc_phases", name, value)
    stop = total - final_sparse - last_dense
    cycle = sparse + dense
    past = (stop - warmup) % cycle
    if stop <= warmup or past == 0 or past > sparse:
        got = f"{stop - warmup} units between warm-up and last dense phase"
        fail("acdc_phases", "total", got, f"a number that ends in a sparse phase of cycles {sparse} + {dense}")
    phases: list[Phase] = [Phase("dense", 0, warmup)]
    for start in range(warmup, stop, cycle):
        phases.append(Phase("sparse", start, min(start + sparse, stop)))
        phases.append(Phase("dense", start + sparse, start + cycle))
    phases[-1] = Phase("dense", stop, stop + last_dense)
    phases.append(Phase("sparse", stop + last_dense, total))
    n = steps_per_unit
    ratio = None
    if learning_rate is not None and weight_decay:
        ratio = n * min(sparse, dense) * learning_rate * weight_decay / (1 - momentum)
        if ratio < _SHORT:
            warnings.warn(
                f"acdc_phases: phases last {ratio:.2g} of the {n * min(sparse, dense) / ratio:.0f} steps in which SGD "
                f"forgets; expected at least {_SHORT}. The support may freeze at the first compression: use longer "
                "phases, or a higher learning rate or weight decay.",
                ShortPhasesWarning,
                stacklevel=2,
            )
    scaled = tuple(Phase(kind, n * start, n * stop) for kind, start, stop in phases)
    return PhaseList(scaled, ratio)


Reset = Literal["all", "pruned", "none"]


@dataclass(frozen=True)
class ACDC(Method):
    """The method object behind ``acdc``."""

    sparsity: float
    phases: PhaseList
    scope: Scope
    resets: Reset

    @property
    def reset(self) -> Literal["dropped", "none"]:
        """Moments of weights that a compression drops are zeroed, unless no reset is asked for."""
        return "none" if self.resets == "none" else "dropped"

    def init(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Keep all weights: the first phase is dense. The counts are checked here, before training."""
        self._counts(view)
        return view.masks, ()

    def refresh(self, step: Step) -> Fires:
        """Fire at the first step of every phase."""
        return _is_in(step, self.phases.switches)

    def restarts(self, step: Step) -> Fires | None:
        """Fire at the first step of every dense phase."""
        if self.resets != "all":
            return None
        starts = [phase.start for phase in self.phases.phases[1:] if phase.kind == "dense"]
        return _is_in(step, starts)

    def update(self, view: View) -> tuple[list[jax.Array], PyTree]:
        """Compress to the largest weights, or set all weights free."""
        counts = np.array(self._counts(view), np.int32)
        sparse = [phase.start for phase in self.phases.phases if phase.kind == "sparse"]
        masks = branch(
            jnp.any(view.step == jnp.array(sparse, jnp.int32)),
            lambda: self.scope.choose(view.structure, [jnp.abs(weight) for weight in view.weights], counts),
            lambda: [jnp.ones_like(mask) for mask in view.masks],
        )
        return masks, view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """Return what compressed phases keep."""
        level = as_fraction("acdc", "sparsity", self.sparsity)
        return capacities("acdc", self.scope, view, level, "sparse phases")

    def _counts(self, view: View) -> list[int]:
        level = as_fraction("acdc", "sparsity", self.sparsity)
        return self.scope.counts("acdc", view.structure, view.names, view.shapes, level)


def _is_in(step: Step, steps: Sequence[int]) -> Fires:
    matches: Any = step == np.array(steps, np.int32)
    return matches.any()


def acdc(
    sparsity: float, phases: PhaseList | Sequence[Phase], *, scope: ScopeLike = "global", reset: Reset = "all"
) -> Method:
    """Alternate between compressed and decompressed training (AC/DC).

    dense -> sparse:  mask <- top-k of |w|, w <- w * mask;  sparse -> dense:  mask <- 1, pruned weights re-enter at 0,
    all moments <- 0.  The learning rate follows its own schedule; phases never restart it.

    The mask of a compressed phase is in force in its first forward pass. Moments of weights that a compression drops
    are set to zero. The counts are exact: k = n - round_half_even(s * n). (The authors' code keeps one weight less and
    leaves stale momentum on dropped weights, which its reset hides.)

    Args:
      sparsity: fraction of zeros in compressed phases, in (0, 1).
      phases: ``acdc_phases(...)``, or a sequence of ``Phase(kind, start, stop)`` in optimizer steps.
      scope: ``"global"``, one threshold (published default); ``"layer"``, uniform; or any other scope. With
        ``n_of_m(2, 4)`` as structure: the published 2:4 variant, sparsity 0.5.
      reset: what a decompression does to the inner optimizer. "all": everything kept per parameter starts again, of
        biases and normalisation layers too (published); "pruned": only weights that come back start at zero;
        "none": moments are left alone at every switch.

    Returns:
      Method for ``pruned``.

    Raises:
      ValueError: sparsity outside (0, 1), unknown reset, or phases that overlap, leave a gap, do not start dense or
        do not end sparse.

    Published values: sparsity 0.8 to 0.98; ImageNet, 100 epochs, ResNet-50: warm-up 10, phases of 5, last dense
      phase 10, final sparse phase 15; SGD, momentum 0.875, weight decay 2**-15 on every parameter.
    Source: Peste et al. 2021, "AC/DC: Alternating Compressed/DeCompressed training of deep neural networks",
      section 4 and algorithm 2.

    >>> from sparsejax.pruning import acdc_phases
    >>> method = acdc(0.9, acdc_phases(total=100, warmup=10, sparse=5, dense=5, last_dense=10, final_sparse=15))
    >>> [step for step in range(101) if method.refresh(step)][:4]
    [10, 15, 20, 25]
    """
    if as_fraction("acdc", "sparsity", sparsity) == 0:
        fail("acdc", "sparsity", f"value {sparsity}", "a fraction of zeros in (0, 1)")
    if reset not in ("all", "pruned", "none"):
        fail("acdc", "reset", f"value {reset!r}", "'all', 'pruned' or 'none'")
    return ACDC(float(sparsity), phase_list("acdc", phases), as_scope("acdc", scope), reset)


def dense_partner(opt_state: PyTree) -> PyTree:
    """Fork the dense partner of the sparse model: the state with which the inner optimizer goes on alone.

    Take parameters and state at any step *inside the last dense phase* (say one step before it ends), and continue
    with the plain inner optimizer for the rest of that phase and for as many steps as the final sparse phase
    takes. Momentum, counters and learning-rate schedule carry on. The partner is not fully dense: units without
    live inputs have no gradient and stay at zero; report ``sparsity_of(params)``.

    Args:
      opt_state: state of ``pruned(inner, acdc(...))`` in a dense phase.

    Returns:
      State of ``inner``.

    Raises:
      ValueError: no state of ``pruned`` at the top, or a mask in force.

    Source: Peste et al. 2021, "AC/DC", section 5 (co-trained sparse-dense pairs).

    >>> import optax
    >>> from sparsejax.pruning import acdc_phases, pruned
    >>> inner = optax.sgd(0.1, momentum=0.9)
    >>> phases = acdc_phases(total=8, warmup=2, sparse=1, dense=1, last_dense=2, final_sparse=3)
    >>> state = pruned(inner, acdc(0.5, phases)).init({"kernel": jnp.ones((2, 2))})
    >>> dense_partner(state)[0].trace["kernel"].shape
    (2, 2)
    """
    if not isinstance(opt_state, PrunedState):
        got = f"type {type(opt_state).__name__}"
        fail("dense_partner", "opt_state", got, "the state of pruned(...) itself, in no other wrapper")
    if not all(bool(jnp.all(mask)) for mask in jax.tree.leaves(get_mask(opt_state))):
        fail("dense_partner", "opt_state", "a mask in force", "the state of a dense phase")
    return opt_state.inner
