"""``define_bilinear`` and its like: every rule of one primitive, given in one call.

All products of this package are bilinear in their first two operands and closed under transposition, so two short
rules each give every order and both modes of differentiation. The operands after the first two are a pattern's
index arrays, which have no derivative. What is not bilinear has a primitive for its derivative (``define_derivative``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._compat import (
    Primitive,
    ad,
    align_varying,
    batching,
    instantiate,
    mlir,
    out_aval,
    register_in_place,
    zero_tangent,
)
from sparsejax.kernels._partition import over_devices
from sparsejax.pattern._build import both_orientations

Rule = Callable[..., Any]


def define(
    name: str,
    *,
    abstract: Rule,
    reference: Rule,
    cpu_lowering: Rule | None,
    batch: Rule | None = None,
    multiple_results: bool = False,
    batch_sums: bool = True,
) -> tuple[Any, Rule]:
    """A primitive: evaluation, lowerings and batching, and the function that binds it.

    Args:
      name: primitive's name.
      abstract: ``(*avals, **params) -> aval``.
      reference: its meaning in plain JAX; the lowering on every platform that has no other.
      cpu_lowering: lowering rule for CPU, or None to use the reference there too.
      batch: ``(call, args, dims, **params) -> (result, dim)`` for the cases that need no loop, or None from it to
        loop over the mapped axis.
      multiple_results: whether the primitive returns a tuple.
      batch_sums: whether results without a batch axis are sums over the batch. If not, a program whose batch is sharded
        over several devices gets ``reference``.
    """
    primitive = Primitive(name)
    primitive.multiple_results = multiple_results
    primitive.def_abstract_eval(abstract)
    primitive.def_impl(lambda *args, **params: _eager(primitive, tuple(sorted(params.items())))(*args))
    anywhere = mlir.lower_fun(reference, multiple_results=multiple_results)
    if cpu_lowering is None:
        mlir.register_lowering(primitive, anywhere)
    else:
        on_cpu = over_devices(primitive, cpu_lowering, None if batch_sums else anywhere)
        _register(primitive, abstract, on_cpu, anywhere)

    def call(*args: Any, **params: Any) -> Any:
        return primitive.bind(*align_varying(*args), **params)

    def batch_rule(args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, int]:
        folded = batch(call, args, dims, **params) if batch is not None else None
        out, dim = folded if folded is not None else (loop_over_mapped(call, args, dims, params), 0)
        return out, jax.tree.map(lambda _: dim, out)

    batching.primitive_batchers[primitive] = batch_rule
    return primitive, call


def _register(primitive: Any, abstract: Rule, on_cpu: Rule, anywhere: Rule) -> None:
    """Register one lowering rule for CPUs and another one for all other platforms.

    In a program for CPUs alone, the rule sees which operations its operands come from.
    """
    portable = Primitive(primitive.name)  # for programs of several platforms, between whose rules JAX chooses
    portable.multiple_results = primitive.multiple_results
    portable.def_abstract_eval(abstract)
    mlir.register_lowering(portable, anywhere)
    mlir.register_lowering(portable, on_cpu, platform="cpu")
    either = mlir.lower_fun(portable.bind, multiple_results=primitive.multiple_results)

    def lowering(ctx: Any, *operands: Any, **params: Any) -> Any:
        platforms = ctx.platforms or ctx.module_context.platforms
        return (on_cpu if tuple(platforms) == ("cpu",) else either)(ctx, *operands, **params)

    register_in_place(primitive, lowering)


def define_linear(name: str, *, transpose: Rule, **rules: Any) -> Rule:
    """A primitive linear in its first operand; ``transpose(ct, aval, *rest, **params)`` is its transpose."""
    primitive, call = define(name, **rules)

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
        out = call(*primals, **params)
        if type(tangents[0]) is ad.Zero:
            return out, zero_tangent(out)
        return out, call(tangents[0], *primals[1:], **params)

    def transpose_rule(ct: Any, x: Any, *rest: Any, **params: Any) -> list[Any]:
        zero = type(ct) is ad.Zero
        out = ad.Zero(x.aval) if zero else transpose(ct, x.aval, *rest, **params)
        return [out] + [None] * len(rest)

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose_rule
    return call


def define_derivative(name: str, *, linear: Rule, transpose: Rule, reference: Rule, **rules: Any) -> Rule:
    """A primitive with several results that is the derivative of a function, or the transpose of one.

    It is linear in its first operands; the others are the point at which the derivative is taken. Its own derivative in
    that point is the one of ``reference``, so every order exists.

    Args:
      name: primitive's name.
      linear: ``(**params) -> number`` of operands in which it is linear.
      transpose: ``(cts, *point, **params)``, the cotangents of the operands in which it is linear.
      reference: its meaning in plain JAX.
      **rules: as for ``define``.
    """
    primitive, call = define(name, reference=reference, multiple_results=True, **rules)

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
        out, count = call(*primals, **params), linear(**params)
        moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
        if not moving:
            return out, [zero_tangent(o) for o in out]
        if max(moving) < count:
            return out, call(*map(instantiate, tangents[:count]), *primals[count:], **params)

        def along(*moved: Any) -> Any:
            operands = list(primals)
            for i, value in zip(moving, moved, strict=True):
                operands[i] = value
            return reference(*operands, **params)

        return out, jax.jvp(along, [primals[i] for i in moving], [tangents[i] for i in moving])[1]

    def transpose_rule(cts: Sequence[Any], *operands: Any, **params: Any) -> list[Any]:
        count = linear(**params)
        if all(type(ct) is ad.Zero for ct in cts):
            cotangents = [ad.Zero(a.aval) if ad.is_undefined_primal(a) else None for a in operands[:count]]
        else:
            cotangents = transpose(map(instantiate, cts), *operands[count:], **params)
        wanted = [ct if ad.is_undefined_primal(a) else None for ct, a in zip(cotangents, operands[:count], strict=True)]
        return wanted + [None] * (len(operands) - count)

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose_rule
    return call


def define_bilinear(name: str, *, transpose: tuple[Rule, Rule], tangent: Rule | None = None, **rules: Any) -> Rule:
    """A primitive bilinear in its first two operands.

    Args:
      name: primitive's name.
      transpose: two functions ``(ct, other, undefined_aval, *index_operands, **params)``, the cotangents of operand
        0 (given operand 1) and of operand 1 (given operand 0).
      tangent: the first of ``define_gradients``, where both operands move; None for one product each.
      **rules: as for ``define``.
    """
    primitive, call = define(name, **rules)

    def moved(position: int, t: Any, *args: Any, **params: Any) -> Any:
        return call(*(t if i == position else a for i, a in enumerate(args)), **params)

    def jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
        out = call(*primals, **params)
        moving = [i for i, t in enumerate(tangents[:2]) if type(t) is not ad.Zero]
        if not moving:
            return out, zero_tangent(out)
        if tangent is not None and len(moving) == 2:
            return out, tangent(*tangents[:2], *primals, **params)[0]
        return out, functools.reduce(jnp.add, [moved(i, tangents[i], *primals, **params) for i in moving])

    def transpose_rule(ct: Any, a: Any, b: Any, *index: Any, **params: Any) -> list[Any]:
        out: list[Any] = [None] * (2 + len(index))
        for i, (mine, other) in enumerate(((a, b), (b, a))):
            if ad.is_undefined_primal(mine):
                zero = type(ct) is ad.Zero
                out[i] = ad.Zero(mine.aval) if zero else transpose[i](ct, other, mine.aval, *index, **params)
        return out

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose_rule
    return call


def on_both_orientations(call: Rule) -> Rule:
    """The function that binds a bilinear product which reads the transposed orientation of its pattern."""
    return lambda a, b, *index, **params: call(a, b, *both_orientations(*index), **params)


def define_gradients(
    name: str, *, product: Rule, abstract: Rule, transpose: tuple[Rule, Rule], cpu_lowering: Rule
) -> tuple[Rule, Rule]:
    """Both gradients of a bilinear product as one primitive, so that a kernel goes through the cotangent once.

    Args:
      name: of the product.
      product: what ``define_bilinear`` returned.
      abstract, transpose: as for ``define_bilinear``.
      cpu_lowering: lowering rule of the gradients.

    Returns:
      ``(tangent, backward)``. ``tangent(ta, tb, a, b, *index)`` is ``(product(ta, b) + product(a, tb),)``, and
      ``backward(ct, a, b, *index)`` is the cotangents of ``a`` and ``b``. Each is the other's transpose; derivatives in
      ``a`` and ``b`` are those of the products.
    """

    def tangents(ta: Any, tb: Any, a: Any, b: Any, *index: Any, **params: Any) -> tuple[Any]:
        return (product(ta, b, *index, **params) + product(a, tb, *index, **params),)

    def cotangents(ct: Any, a: Any, b: Any, *index: Any, **params: Any) -> tuple[Any, Any]:
        return transpose[0](ct, b, a, *index, **params), transpose[1](ct, a, b, *index, **params)

    def mapped(reference: Rule) -> Rule:
        """Products know best how they are mapped."""

        def rule(call: Rule, args: Sequence[Any], dims: Sequence[Any], **params: Any) -> Any:
            return list(jax.vmap(functools.partial(reference, **params), in_axes=tuple(dims))(*args)), 0

        return rule

    tangent = define_derivative(
        f"{name}_tangent",
        linear=lambda **params: 2,
        abstract=lambda ta, tb, *point, **params: (abstract(*point, **params),),
        reference=tangents,
        cpu_lowering=None,
        transpose=lambda cts, a, b, *index, **params: backward(*cts, a, b, *both_orientations(*index), **params),
        batch=mapped(tangents),
    )
    backward = define_derivative(
        f"{name}_backward",
        linear=lambda **params: 1,
        abstract=lambda ct, a, b, *_, **params: (out_aval(ct, a.shape, a.dtype), out_aval(ct, b.shape, b.dtype)),
        reference=cotangents,
        cpu_lowering=cpu_lowering,
        transpose=lambda cts, *point, **params: tangent(*cts, *point, **params),
        batch=mapped(cotangents),
    )
    return tangent, backward


@functools.lru_cache(maxsize=4096)
def _eager(primitive: Any, params: tuple[tuple[str, Any], ...]) -> Rule:
    """One jitted function per parameter set, so that eager calls do not recompile."""
    return jax.jit(functools.partial(primitive.bind, **dict(params)))


def loop_over_mapped(call: Rule, args: Sequence[Any], dims: Sequence[Any], params: dict[str, Any]) -> Any:
    """``call`` for each element of the mapped operands, results stacked on axis 0."""
    mapped = [d is not None for d in dims]
    moved = [jnp.moveaxis(a, d, 0) for a, d, m in zip(args, dims, mapped, strict=True) if m]

    def one(slices: list[Any]) -> Any:
        rest = iter(slices)
        return call(*(next(rest) if m else a for a, m in zip(args, mapped, strict=True)), **params)

    return jax.lax.map(one, moved)
