"""Data parallelism for a training step of the user's own: one function around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax._checks import fail
from sparsejax._typing import PyTree


def data_parallel(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compile a training step whose batch is divided over all devices of a mesh, in one process or in several.

    The step is written for one device and computes what it says for the whole batch: a mean over the batch is one over
    all devices, batch norm uses statistics of all of them, and gradients are summed. Everything but the batch is
    replicated: parameters, masks, patterns and optimizer state are the same bits on every device after every step, so
    every device changes its masks alike. A stored kernel's gradient has one number per stored weight on the wire.

    Args:
      step: ``step(*state, batch)``; the last argument is a tree of arrays whose first axis is the batch, the others are
        trees of arrays or NNX objects such as a module and an ``nnx.Optimizer``, which may be updated in place.
      mesh: devices; the batch is divided over all its axes.

    Returns:
      A function with the signature of ``step``. Its batch is that of this process: each process passes its own rows, a
      multiple of its number of devices. Results are replicated.

    Raises:
      ValueError: the rows of this process are not a multiple of its devices, or leaves of the batch differ in length.

    >>> mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> step = data_parallel(lambda total, batch: total + batch.sum(), mesh)
    >>> float(step(np.float32(1.0), np.arange(8.0)))
    29.0
    """
    whole = NamedSharding(mesh, PartitionSpec())
    shares = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    @nnx.jit
    def compiled(*args: Any) -> Any:
        return jax.lax.with_sharding_constraint(step(*args), whole)

    @functools.wraps(step)
    def parallel(*args: Any) -> Any:
        *state, batch = args
        _check_rows(batch, mesh)
        placed = [_replicated(part, whole) for part in state]
        return compiled(*placed, jax.tree.map(lambda rows: _global(rows, shares), batch))

    return parallel


def _check_rows(batch: PyTree, mesh: Mesh) -> None:
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
    devices = len(mesh.local_devices)
    if len(lengths) != 1:
        fail(
            "data_parallel", "batch", f"leaves of {sorted(lengths)} rows", "arrays of one length, with the batch first"
        )
    if (rows := lengths.pop()) % devices:
        got, rule = f"{rows} rows in this process", f"a multiple of {devices}, the devices of this process"
        fail("data_parallel", "batch", got, rule, "Leave out the last incomplete batch, or pad it.")


def _replicated(part: Any, whole: NamedSharding) -> Any:
    """The argument with its arrays on every device; an NNX object stays the same object."""
    if not isinstance(part, nnx.Pytree):
        return jax.device_put(part, whole)
    nnx.update(part, jax.device_put(nnx.state(part), whole))
    return part


def _global(rows: Any, shares: NamedSharding) -> jax.Array:
    """The rows of all processes as one array; one that is placed already stays where it is."""
    if isinstance(rows, jax.Array) and rows.sharding == shares:
        return rows
    return jax.make_array_from_process_local_data(shares, np.asarray(rows))
