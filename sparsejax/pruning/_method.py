"""The interface of a pruning method: pure functions over the prunable leaves; and a list of rules as a method."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax.pruning._filters import KERNELS, Filter, Predicate, as_filter
from sparsejax.pruning.allocation._scopes import Capacity
from sparsejax.pruning.allocation._structures import Structure


class View(NamedTuple):
    """The arguments of a method; all lists run over the prunable leaves, in flattening order.

    Attributes:
      names: ``/``-joined path of each leaf.
      weights: the weights; in ``update`` as they will stand when the new mask takes effect.
      masks: the mask until now, boolean, True keeps the weight.
      step: optimizer steps done, int32 scalar; in ``update`` the mask is for the forward pass that follows them.
      aux: state of the method, a pytree of arrays.
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
      enters: value of a weight that is grown again: "zero", or the "candidate" that the optimizer proposes.
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
        """Tell whether the moments of all parameters are reset after ``step`` steps; None: never."""
        return None


Rule: TypeAlias = tuple[Predicate, Method, Structure]


@dataclass(frozen=True)
class Rules(Method):
    """Several methods in one wrapper; the first rule that matches a leaf decides. ``aux`` is a tuple of theirs."""

    rules: tuple[tuple[Filter, Method, Structure], ...]

    def init(self, view: View) -> tuple[list[jax.Array], Any]:
        """Start every method on its leaves."""
        return self._merged_results(view, [method.init(part._replace(aux=())) for method, part in self._parts(view)])

    def refresh(self, step: Any) -> Any:
        """Fire when any method does."""
        return _any([method.refresh(step) for _, method, _ in self.rules])

    def update(self, view: View) -> tuple[list[jax.Array], Any]:
        """Let those methods choose that fire."""
        results = []
        for method, part in self._parts(view):
            update = lambda method=method, part=part: method.update(part)  # noqa: E731
            results.append(branch(method.refresh(view.step), update, lambda part=part: (part.masks, part.aux)))
        return self._merged_results(view, results)

    def observe(self, view: View) -> Any:
        """Let every method observe."""
        return tuple(method.observe(part) for method, part in self._parts(view))

    def gradients(self, view: View) -> list[jax.Array]:
        """Ask every method."""
        return self._merged(view, [method.gradients(part) for method, part in self._parts(view)])

    def restarts(self, step: Any) -> Any:
        """Moments of all parameters are reset when those of any rule are."""
        fires = [fire for _, method, _ in self.rules if (fire := method.restarts(step)) is not None]
        return _any(fires) if fires else None

    def capacity(self, view: View) -> list[Capacity]:
        """Ask every method."""
        return self._merged(view, [method.capacity(part) for method, part in self._parts(view)])

    def _rule_of_each(self, view: View) -> list[int]:
        """Return which rule decides about each leaf."""
        positions = []
        for name, weight in zip(view.names, view.weights, strict=True):
            matching = [i for i, (where, _, _) in enumerate(self.rules) if where(name, weight)]
            if not matching:
                fail("pruned", f"leaf {name!r}", "no rule that matches", "one; leave it out with where=... otherwise")
            positions.append(matching[0])
        for i, (where, _, _) in enumerate(self.rules):
            if i not in positions:
                fail("pruned", f"rule {i}, {where},", "no leaf", "at least one that no earlier rule takes")
        return positions

    def _parts(self, view: View) -> Iterator[tuple[Method, View]]:
        """Yield each method with the view of its leaves."""
        positions = self._rule_of_each(view)
        auxes = view.aux if view.aux else ((),) * len(self.rules)

        def of_rule(values: Sequence[Any], i: int) -> list[Any]:
            return [value for value, at in zip(values, positions, strict=True) if at == i] if values else []

        for i, (_, method, structure) in enumerate(self.rules):
            lists = (of_rule(values, i) for values in (view.names, view.weights, view.masks, view.grads))
            names, weights, masks, grads = lists
            yield method, View(names, weights, masks, view.step, auxes[i], structure, grads)

    def _merged(self, view: View, parts: Sequence[list[Any]]) -> list[Any]:
        """Return one list over all leaves from those of the rules."""
        rest = [iter(part) for part in parts]
        return [next(rest[i]) for i in self._rule_of_each(view)]

    def _merged_results(
        self, view: View, results: Sequence[tuple[list[jax.Array], Any]]
    ) -> tuple[list[jax.Array], Any]:
        return self._merged(view, [masks for masks, _ in results]), tuple(aux for _, aux in results)


def _any(fires: Sequence[Any]) -> jax.Array:
    return jnp.any(jnp.stack([jnp.asarray(fire) for fire in fires]))


def branch(fires: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """Return ``yes()`` if ``fires``, else ``no()``: a branch of the program where ``fires`` is traced, else at once.

    Outside ``jit`` a branch of a program would be compiled again in every step, because its closures are new.
    """
    if is_traced(fires):
        return lax.cond(fires, yes, no)
    return yes() if fires else no()


def as_method(method: Method | Sequence[Rule], where: Predicate) -> tuple[Method, Predicate]:
    """Return one method for a list of rules, and unless ``where`` was chosen the leaves that any of them takes.

    Anything but a list is returned as it is.

    Raises:
      TypeError: a rule is not a ``(where, method, structure)``.
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
        part, each, structure = rule
        if (each.outside, each.enters, each.reset, each.skips_inner) != ("zero", "zero", "dropped", False):
            got = f"the method {type(each).__name__} in a list of rules"
            hint = "Give it a wrapper by itself: optax.partition."
            fail("pruned", "method", got, "methods that keep zeros and skip no step", hint)
        checked.append((as_filter(part), each, structure))
    union = checked[0][0]
    for part, _, _ in checked[1:]:
        union = union | part
    return Rules(tuple(checked)), union if where is KERNELS else where
