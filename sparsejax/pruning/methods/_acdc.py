"""AC/DC: training that alternates between a compressed and a decompressed network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax._checks import fail
from sparsejax.pruning._capacity import Capacity
from sparsejax.pruning._leaves import PyTree
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._state import PrunedState, get_mask
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import Scope, ScopeLike, as_scope, capacities
from sparsejax.pruning.methods._phases import Phase, PhaseList, phase_list

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

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Keep all weights: the first phase is dense. The counts are checked here, before training."""
        self._counts(view)
        return view.masks, ()

    def refresh(self, step: Any) -> Any:
        """Fire at the first step of every phase."""
        return (step == np.array(self.phases.switches)).any()

    def restarts(self, step: Any) -> Any:
        """Fire at the first step of every dense phase."""
        if self.resets != "all":
            return None
        starts = [phase.start for phase in self.phases.phases[1:] if phase.kind == "dense"]
        return (step == np.array(starts, np.int32)).any()

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Compress to the largest weights, or set all weights free."""
        counts = np.array(self._counts(view), np.int32)
        sparse = [phase.start for phase in self.phases.phases if phase.kind == "sparse"]
        masks = lax.cond(
            jnp.any(view.step == jnp.array(sparse, jnp.int32)),
            lambda: self.scope.choose(view.structure, [jnp.abs(weight) for weight in view.weights], counts),
            lambda: [jnp.ones_like(mask) for mask in view.masks],
        )
        return masks, view.aux

    def capacity(self, view: View) -> list[Capacity]:
        """What compressed phases keep."""
        level = as_fraction("acdc", "sparsity", self.sparsity)
        return capacities("acdc", self.scope, view, level, "sparse phases")

    def _counts(self, view: View) -> list[int]:
        level = as_fraction("acdc", "sparsity", self.sparsity)
        return self.scope.counts("acdc", view.structure, view.names, view.shapes, level)


def acdc(
    sparsity: float, phases: PhaseList | Sequence[Phase], *, scope: ScopeLike = "global", reset: Reset = "all"
) -> Method:
    """Alternate compressed and decompressed training (AC/DC).

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
      reset: what a decompression does to the inner optimizer. "all": everything kept per parameter starts anew, of
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
