"""What a pruning method is: pure functions over the prunable leaves."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax._checks import fail
from sparsejax.pruning._filters import KERNELS, Filter, Predicate, as_filter
from sparsejax.pruning.allocation._scopes import Capacity
from sparsejax.pruning.allocation._structures import Structure


class View(NamedTuple):
    """What a method sees; all lists run over the prunable leaves, in flattening order.

    Attributes:
      names: ``/``-joined path of each leaf.
      weights: the weights; in ``update`` as they will stand when the new mask takes effect.
      masks: the mask until now, boolean, True keeps the weight.
      step: optimizer steps done, int32 scalar; in ``update`` the mask is for the forward pass that follows them.
      aux: the method's own state, a pytree of arrays.
      structure: how scores become masks.
      grads: gradient of the loss at the forward weights of this step, dense; empty in ``init``.
    """

    names: list[str]
    weights: list[jax.Array]
    masks: list[jax.Array]
    step: jax.Array | int
    aux: Any
    structure: Structure
    grads: list[jax.Array]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each leaf."""
        return [weight.shape for weight in self.weights]


class Method(abc.ABC):
    """A pruning method. All state is in ``aux``; random draws come from a seed, the step and the leaf's path.

    Attributes:
      outside: what happens to a weight outside the mask: it is "zero"; or it stays in the parameters unused, and
        there "keep" its value or "train" on (the forward pass then needs ``forward_params``).
      enters: value of a weight that comes back: "zero", or the "candidate" that the optimizer proposes.
      reset: moments of weights that no longer train are set to zero at a change of the mask ("dropped"), or "none".
      skips_inner: a step that changes the mask makes no optimizer step.
    """

    outside: ClassVar[Literal["zero", "keep", "train"]] = "zero"
    enters: ClassVar[Literal["zero", "candidate"]] = "zero"
    skips_inner: ClassVar[bool] = False

    @property
    def reset(self) -> Literal["dropped", "none"]:
        """Which moments are set to zero at a change of the mask."""
        return "dropped"

    @abc.abstractmethod
    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Return the first masks and the first ``aux``; ``view.masks`` is all True, ``view.step`` is 0."""

    @abc.abstractmethod
    def refresh(self, step: Any) -> Any:
        """Tell whether ``update`` is to run after ``step`` optimizer steps; returns a bool scalar."""

    @abc.abstractmethod
    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Return the new masks and ``aux``, of unchanged shapes and dtypes; runs under ``lax.cond``."""

    def observe(self, view: View) -> Any:
        """Return the new ``aux``; called in every step, before anything else."""
        return view.aux

    def trained(self, view: View) -> list[jax.Array]:
        """Return which weights train while ``view.masks`` and ``view.aux`` are in force."""
        return view.masks

    def gradients(self, view: View) -> list[jax.Array]:
        """Return the gradients that the inner optimizer is to see."""
        pairs = zip(self.trained(view), view.grads, strict=True)
        return [jnp.where(trains, grad, jnp.zeros_like(grad)) for trains, grad in pairs]

    def capacity(self, view: View) -> list[Capacity]:
        """Return what a buffer for the kept weights of each leaf must hold; by default all of them.

        Only names, shapes and structure of ``view`` may be used.
        """
        return [Capacity("dense", math.prod(shape)) for shape in view.shapes]

    def restarts(self, step: Any) -> Any:
        """Tell whether the moments of all parameters start anew after ``step`` steps; None is never."""
        return None


Rule = tuple[Predicate, Method, Structure]


@dataclass(frozen=True)
class Rules(Method):
    """Each rule's method sees the leaves that are its own; ``aux`` is a tuple of theirs."""

    rules: tuple[tuple[Filter, Method, Structure], ...]

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Start every method on its leaves."""
        parts = [
            method.init(part._replace(aux=()))
            for (_, method, _), part in zip(self.rules, self._split(view), strict=True)
        ]
        return self._merge(view, [masks for masks, _ in parts]), tuple(aux for _, aux in parts)

    def refresh(self, step: Any) -> Any:
        """Fire when any method does."""
        fires = [method.refresh(step) for _, method, _ in self.rules]
        return jnp.any(jnp.stack([jnp.asarray(fire) for fire in fires]))

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Let those methods choose that fire."""
        parts = []
        for (_, method, _), part in zip(self.rules, self._split(view), strict=True):
            parts.append(
                lax.cond(
                    method.refresh(view.step),
                    lambda method=method, part=part: method.update(part),
                    lambda part=part: (part.masks, part.aux),
                )
            )
        return self._merge(view, [masks for masks, _ in parts]), tuple(aux for _, aux in parts)

    def observe(self, view: View) -> Any:
        """Let every method observe."""
        pairs = zip(self.rules, self._split(view), strict=True)
        return tuple(method.observe(part) for (_, method, _), part in pairs)

    def gradients(self, view: View) -> list[jax.Array]:
        """Ask every method."""
        pairs = zip(self.rules, self._split(view), strict=True)
        return self._merge(view, [method.gradients(part) for (_, method, _), part in pairs])

    def restarts(self, step: Any) -> Any:
        """Moments of all parameters start anew when those of any rule do."""
        fires = [fire for _, method, _ in self.rules if (fire := method.restarts(step)) is not None]
        return jnp.any(jnp.stack([jnp.asarray(fire) for fire in fires])) if fires else None

    def capacity(self, view: View) -> list[Capacity]:
        """Ask every method."""
        pairs = zip(self.rules, self._split(view), strict=True)
        return self._merge(view, [method.capacity(part) for (_, method, _), part in pairs])

    def _owners(self, view: View) -> list[int]:
        owners = []
        for name, weight in zip(view.names, view.weights, strict=True):
            matching = [i for i, (where, _, _) in enumerate(self.rules) if where(name, weight)]
            if not matching:
                fail("pruned", f"leaf {name!r}", "no rule that matches", "one; leave it out with where=... otherwise")
            owners.append(matching[0])
        for i, (where, _, _) in enumerate(self.rules):
            if i not in owners:
                fail("pruned", f"rule {i}, {where},", "no leaf of its own", "at least one that no earlier rule takes")
        return owners

    def _split(self, view: View) -> list[View]:
        owners = self._owners(view)
        auxes = view.aux if view.aux else ((),) * len(self.rules)

        def own(values: Sequence[Any], rule: int) -> list[Any]:
            return [value for value, owner in zip(values, owners, strict=True) if owner == rule] if values else []

        return [
            View(
                names=own(view.names, i),
                weights=own(view.weights, i),
                masks=own(view.masks, i),
                step=view.step,
                aux=auxes[i],
                structure=structure,
                grads=own(view.grads, i),
            )
            for i, (_, _, structure) in enumerate(self.rules)
        ]

    def _merge(self, view: View, parts: Sequence[list[Any]]) -> list[Any]:
        rest = [iter(part) for part in parts]
        return [next(rest[owner]) for owner in self._owners(view)]


def as_method(method: Any, where: Predicate) -> tuple[Method, Predicate]:
    """Return one method for a list of rules, and unless ``where`` was chosen the leaves that any of them takes.

    Anything but a list is returned as it is.

    Raises:
      TypeError: a rule is no ``(where, method, structure)``.
      ValueError: no rule, or methods that cannot stand in one wrapper.
    """
    if not isinstance(method, Sequence):
        return method, where
    if not method:
        fail("pruned", "method", "an empty list", "rules (where, method, structure)")
    checked = []
    for rule in method:
        if not isinstance(rule, tuple) or len(rule) != 3 or not isinstance(rule[1], Method):
            fail("pruned", "method", f"the rule {rule!r}", "(where, method, structure)", error=TypeError)
        part, own, structure = rule
        if (own.outside, own.enters, own.reset, own.skips_inner) != ("zero", "zero", "dropped", False):
            got = f"the method {type(own).__name__} in a list of rules"
            hint = "Put it in a wrapper of its own: optax.partition."
            fail("pruned", "method", got, "methods that keep zeros and skip no step", hint)
        checked.append((as_filter(part), own, structure))
    union = checked[0][0]
    for part, _, _ in checked[1:]:
        union = union | part
    return Rules(tuple(checked)), union if where is KERNELS else where
