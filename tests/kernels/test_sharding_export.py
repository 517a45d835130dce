"""Several devices, exported programs, and platforms that have no kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import sparsejax
from helpers.grid import make_pattern, normal
from sparsejax import SparsityPattern
from sparsejax.kernels import export_checks

pytestmark = pytest.mark.usefixtures("strict_dtypes")
P = PartitionSpec


def matrix_case() -> tuple[Any, ...]:
    """``(function of data, pattern, x; data, pattern, x)`` of a linear layer."""
    pattern, _ = make_pattern("padded", (6, 5))
    return sparsejax.spmm, normal(0, (pattern.nse,), "float32"), pattern, normal(1, (8, 6), "float32")


def conv_case() -> tuple[Any, ...]:
    """The same of a convolution."""
    pattern, _ = make_pattern("padded", (3, 3, 2, 4))
    f = lambda data, pattern, x: sparsejax.conv(data, pattern, x, strides=2)  # noqa: E731
    return f, normal(0, (pattern.nse,), "float32"), pattern, normal(1, (8, 5, 4, 2), "float32")


CASES = pytest.mark.parametrize("case", [matrix_case, conv_case])


@CASES
@pytest.mark.parametrize("closed_over", [False, True])
def test_shard_map(case: Any, closed_over: bool) -> None:
    """Replicated weights, sharded batch: gradients are those of the whole batch."""
    f, data, pattern, x = case()
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def loss(data: Any, pattern: SparsityPattern, x: Any) -> Any:
        return jnp.sum(jnp.sin(f(data, pattern, x)))

    def sharded(data: Any, pattern: SparsityPattern, x: Any) -> Any:
        def local(data: Any, index: SparsityPattern, x: Any) -> Any:
            return jax.lax.psum(loss(data, pattern if closed_over else index, x), "batch")

        specs = (P(), P(), P("batch"))
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True)(data, pattern, x)

    want, want_grads = jax.value_and_grad(loss, (0, 2))(data, pattern, x)
    got, got_grads = jax.jit(jax.value_and_grad(sharded, (0, 2)))(data, pattern, x)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@CASES
def test_gradients_inside_shard_map(case: Any) -> None:
    """The gradient of replicated weights taken inside is summed over devices; that of the shard is its own."""
    f, data, pattern, x = case()
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(data: Any, x: Any) -> Any:
        return jax.grad(lambda d, v: jnp.sum(jnp.sin(f(d, pattern, v))), (0, 1))(data, x)

    specs = {"in_specs": (P(), P("batch")), "out_specs": (P(), P("batch"))}
    got = jax.jit(jax.shard_map(local, mesh=mesh, check_vma=True, **specs))(data, x)
    for a, b in zip(got, local(data, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@CASES
def test_export_round_trip(case: Any) -> None:
    f, data, pattern, x = case()
    step = jax.jit(jax.value_and_grad(lambda d, *index, v: jnp.sum(jnp.sin(f(d, rebuild(pattern, index), v)))))
    index = jax.tree.leaves(pattern)
    exported = jax.export.export(step, disabled_checks=export_checks())(data, *index, v=x)
    loaded = jax.export.deserialize(exported.serialize())
    for a, b in zip(loaded.call(data, *index, v=x), step(data, *index, v=x), strict=True):
        assert np.array_equal(a, b)


def rebuild(pattern: SparsityPattern, index: Any) -> SparsityPattern:
    """The pattern with other arrays."""
    return jax.tree.unflatten(jax.tree.structure(pattern), index)


@CASES
def test_export_with_its_gradient(case: Any) -> None:
    f, data, pattern, x = case()
    exported = jax.export.export(jax.jit(lambda d, v: f(d, pattern, v)), disabled_checks=export_checks())(data, x)
    loaded = jax.export.deserialize(exported.serialize(vjp_order=1))
    want = jax.grad(lambda d: jnp.sum(f(d, pattern, x) ** 2))(data)
    got = jax.grad(lambda d: jnp.sum(loaded.call(d, x) ** 2))(data)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_export_without_the_checks_is_refused() -> None:
    f, data, pattern, x = matrix_case()
    with pytest.raises(ValueError, match="sparsejax_spmm_v2"):
        jax.export.export(jax.jit(lambda d, v: f(d, pattern, v)))(data, x)


@CASES
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_plain_operations(case: Any, platform: str) -> None:
    f, data, pattern, x = case()
    step = jax.jit(jax.grad(lambda d, v: jnp.sum(jnp.sin(f(d, pattern, v))), (0, 1)))
    lowered = step.trace(data, x).lower(lowering_platforms=(platform,)).as_text()
    assert "custom_call" not in lowered
    here = step.trace(data, x).lower(lowering_platforms=("cpu",)).as_text()
    assert here.count("custom_call @sparsejax") == 2  # forward, and both gradients


@CASES
def test_program_for_several_platforms(case: Any) -> None:
    f, data, pattern, x = case()
    run = jax.jit(lambda d, v: f(d, pattern, v))
    exported = jax.export.export(run, platforms=("cpu", "cuda"), disabled_checks=export_checks())(data, x)
    assert np.array_equal(exported.call(data, x), run(data, x))


@CASES
def test_export_with_a_symbolic_batch(case: Any) -> None:
    f, data, pattern, x = case()
    run = jax.jit(lambda v: f(data, pattern, v))
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    exported = jax.export.export(run, disabled_checks=export_checks())(shape)
    for n in (1, 3, 8):
        assert np.array_equal(exported.call(x[:n]), run(x[:n]))
