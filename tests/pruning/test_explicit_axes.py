"""Kernels sharded over an explicit mesh axis prune as whole ones do, and stay sharded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sparsejax import pruning

CUBIC = pruning.schedules.cubic(0.0, 0.8, begin=0, end=4)
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "magnitude": (pruning.magnitude(CUBIC, update_every=1, start=0, stop=4), {}),
    "magnitude, packed": (pruning.magnitude(CUBIC, update_every=1, start=0, stop=4), {"packed": True}),
    "one_shot, 2 of 4": (pruning.one_shot(0.5, at=2), {"structure": pruning.n_of_m(2, 4)}),
    "rigl": (pruning.rigl(0.8, update_every=2, start=0, stop=4), {}),
}


def train(mesh: jax.sharding.Mesh, spec: PartitionSpec, method: str) -> tuple[Any, Any, Any]:
    rule, options = METHODS[method]
    tx = pruning.pruned(optax.adamw(1e-2), rule, **options)
    kernel = jax.random.normal(jax.random.key(0), (16, 8))
    params = {"kernel": jax.device_put(kernel, NamedSharding(mesh, spec)), "bias": jnp.zeros(8)}

    @jax.jit
    def step(params: Any, state: Any, i: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.tree.map(lambda p: 0.1 * p + jnp.sin(i * p), params), state, params)
        return optax.apply_updates(params, updates), state

    with jax.set_mesh(mesh):
        state = tx.init(params)
        for i in range(5):
            params, state = step(params, state, 1.0 * i)
        return tx, params, state


@pytest.mark.parametrize(
    ("method", "spec"), list(zip(METHODS, (PartitionSpec("data", None), PartitionSpec(None, "data")) * 2, strict=True))
)
def test_sharded_kernels_prune_as_whole_ones(method: str, spec: PartitionSpec) -> None:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    _, whole, _ = train(mesh, PartitionSpec(), method)
    tx, params, state = train(mesh, spec, method)
    assert jax.typeof(params["kernel"]).sharding.spec == spec
    assert np.mean(params["kernel"] == 0) >= 0.49
    assert np.array_equal(params["kernel"], whole["kernel"])
    with jax.set_mesh(mesh):
        mask = pruning.get_mask(state)
        pruning.check(params, state)
        kept, _ = pruning.prune(tx, params, state, jax.tree.map(lambda m: np.asarray(m) & False, mask))
    assert not np.any(kept["kernel"])
