"""Lottery tickets: iterative magnitude pruning with rewinding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.pruning._filters import KERNELS, Predicate, select_leaves
from sparsejax.pruning._leaves import Leaves
from sparsejax.pruning._masks import apply_mask, mask_from_scores
from sparsejax.pruning.allocation._distributions import as_fraction
from sparsejax.pruning.allocation._scopes import ScopeLike

Rewind = Literal["weights", "learning_rate", "none"]


class Ticket(NamedTuple):
    """The outcome of one round.

    Attributes:
      round: from 1.
      sparsity: fraction of zeros asked for in this round.
      mask: tree of masks, for ``fixed``.
      params: masked weights to train next: rewound ones, or those just trained.
      trained: weights at the end of this round's training, before its pruning.
    """

    round: int
    sparsity: float
    mask: PyTree
    params: PyTree
    trained: PyTree


def lottery_tickets(
    train: Callable[[Any, Any, int], Any],
    params: PyTree,
    sparsity: float,
    *,
    rate: float = 0.2,
    rewind: Rewind = "weights",
    scope: ScopeLike = "global",
    where: Predicate = KERNELS,
) -> Iterator[Ticket]:
    """Find lottery tickets: train, prune the smallest weights, rewind, and again.

    round i:  w <- train(w, mask);  mask <- top-k of |w| with density (1 - rate)^i, within the last mask;
    w <- w_0 * mask ("weights") or w * mask

    The last round is shortened so that the sparsity asked for is met exactly.

    Args:
      train: ``(params, mask, round) -> trained params``; the first mask is all True. It trains with
        ``pruned(inner, fixed(mask))``. Under "weights" and "learning_rate" it starts its learning-rate schedule at
        the step that ``params`` stand for, under "none" it fine-tunes at the last learning rate.
      params: weights to rewind to: initial ones (the original), those after a first part of training (late
        rewinding, 0.1 to 7 %), or pre-trained ones (LTH-T: masks and these weights are transferred). Batch statistics
        and optimizer state of that step, if they matter, are for ``train`` to restore.
      sparsity: fraction of zeros of the last ticket, in (0, 1).
      rate: fraction of the remaining weights that a round removes; published 0.2: 11 rounds reach 90 %.
      rewind: "weights" (published), "learning_rate" (keep weights, repeat the schedule), "none" (fine-tuning).
      scope: as for ``magnitude``.
      where: filter of the leaves to prune.

    Yields:
      A ``Ticket`` per round. Train the last one to get the final network.

    Raises:
      ValueError: a value out of range, or ``where`` selects nothing.

    Source: Frankle & Carbin 2019, "The lottery ticket hypothesis", strategy 1; Frankle et al. 2020, "Linear mode
      connectivity and the lottery ticket hypothesis" (rewinding); Renda et al. 2020 (learning-rate rewinding); Chen
      et al. 2021, "The lottery tickets hypothesis for supervised and self-supervised pre-training" (LTH-T).

    >>> tickets = list(lottery_tickets(lambda w, mask, i: w, {"kernel": jnp.arange(10.0).reshape(2, 5)}, 0.5))
    >>> [int(ticket.mask["kernel"].sum()) for ticket in tickets]
    [8, 6, 5, 5]
    """
    if as_fraction("lottery_tickets", "sparsity", sparsity) == 0:
        fail("lottery_tickets", "sparsity", f"value {sparsity}", "a fraction of zeros in (0, 1)")
    if not 0 < rate < 1:
        fail("lottery_tickets", "rate", f"value {rate}", "a fraction in (0, 1)")
    if rewind not in get_args(Rewind):
        fail("lottery_tickets", "rewind", f"value {rewind!r}", f"one of {get_args(Rewind)}")
    leaves = select_leaves("lottery_tickets", where, params)
    return _rounds(train, params, float(sparsity), rate, rewind, scope, leaves)


def _rounds(
    train: Callable[[Any, Any, int], Any],
    params: PyTree,
    sparsity: float,
    rate: float,
    rewind: Rewind,
    scope: ScopeLike,
    leaves: Leaves,
) -> Iterator[Ticket]:
    mask = leaves.masked_tree([jnp.ones_like(leaf, bool) for leaf in leaves.prunable])
    # Tolerance: log(0.8^n) / log(0.8) may come out a rounding error above n.
    rounds = math.ceil(math.log(1 - sparsity) / math.log(1 - rate) - 1e-9)
    start = params
    for i in range(1, rounds + 1):
        trained = train(start, mask, i)
        level = sparsity if i == rounds else 1 - (1 - rate) ** i
        sizes = [jnp.abs(leaf) for leaf in leaves.short(jax.tree.leaves(trained))]
        mask = mask_from_scores(leaves.masked_tree(sizes), level, scope=scope, within=mask)
        start = apply_mask("lottery_tickets", params if rewind == "weights" else trained, mask)
        yield Ticket(i, level, mask, start, trained)
