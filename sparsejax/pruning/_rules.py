"""Several methods in one wrapper: a list of rules, the first that matches a leaf decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax._checks import fail
from sparsejax.pruning._capacity import Capacity
from sparsejax.pruning._filters import KERNELS, Filter, Predicate, as_filter
from sparsejax.pruning._method import Method, View
from sparsejax.pruning.allocation._structures import Structure

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
