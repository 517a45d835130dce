"""One training step over the rows of all processes: gradients are summed, everything else is alike everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax._compat import varies_over
from sparsejax._typing import PyTree
from sparsejax.train._steps import BoundStep, StepKind, loss_of_kind
from sparsejax.train.processes._group import AXIS, Group


def bind_group_step(
    group: Group,
    model: nnx.Module,
    optimizer: nnx.Optimizer[Any],
    kind: StepKind,
    *,
    is_stored: bool,
    sync_batch_norm: bool,
) -> BoundStep:
    """Return the training step of a model whose batch is divided over processes.

    Variables of model and optimizer are arrays of this process before and after each step.

    Args:
      group: the processes.
      model, optimizer: updated in place by each step, alike in every process.
      kind: of the step.
      is_stored: leave out the part of a pruning optimizer that changes the mask.
      sync_batch_norm: use batch statistics of the whole batch, not of the rows of each device.

    Returns:
      A function of the rows of this process that takes a step and returns the loss of the whole batch.

    Raises:
      ConnectionError: by the step: a process is gone.
    """
    assert group.mesh is not None
    step = _compiled(group.mesh, kind, is_stored, sync_batch_norm)
    graphdef, state = nnx.split((model, optimizer))
    whole = jax.tree.map(group.replicated, state)

    def bound(images: Any, labels: Any) -> jax.Array:
        nonlocal whole
        with group.watching():
            loss, whole = step(graphdef, whole, group.rows(images), group.rows(labels))
            loss = jax.block_until_ready(loss.addressable_data(0))
        nnx.update((model, optimizer), jax.tree.map(lambda leaf: leaf.addressable_data(0), whole))
        return loss

    return bound


@functools.cache
def _compiled(mesh: Mesh, kind: StepKind, is_stored: bool, sync_batch_norm: bool) -> Callable[..., Any]:
    """The program of a kind of step; one for all models."""
    options = {"refresh": False} if is_stored else {}
    differentiate = _of_whole_batch if sync_batch_norm else functools.partial(_of_shards, mesh=mesh)

    @jax.jit
    def step(graphdef: Any, state: PyTree, images: jax.Array, labels: jax.Array) -> Any:
        model, optimizer = nnx.merge(graphdef, state)
        loss, grads = differentiate(model, images, labels, kind)
        optimizer.update(model, grads, **options)
        new = nnx.state((model, optimizer))
        return jax.lax.with_sharding_constraint((loss, new), NamedSharding(mesh, PartitionSpec()))

    return step


def _of_whole_batch(model: nnx.Module, images: jax.Array, labels: jax.Array, kind: StepKind) -> tuple[jax.Array, Any]:
    """Loss and gradients of the whole batch; the compiler divides the rows and adds up what it must."""
    return nnx.value_and_grad(
        lambda model: loss_of_kind(model, images, labels, kind), argnums=nnx.DiffState(0, kind.trained)
    )(model)


def _of_shards(
    model: nnx.Module, images: jax.Array, labels: jax.Array, kind: StepKind, mesh: Mesh
) -> tuple[jax.Array, Any]:
    """Means over the devices of the loss, the gradients and the new batch statistics of each: one all-reduce."""
    graphdef, params, rest = nnx.split(model, kind.trained, ...)

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(),
    )
    def mean_over_shards(params: PyTree, rest: PyTree, images: jax.Array, labels: jax.Array) -> Any:
        def loss_of(params: PyTree) -> tuple[jax.Array, Any]:
            shard = nnx.merge(graphdef, params, rest, copy=True)
            return loss_of_kind(shard, images, labels, kind), nnx.state(shard, nnx.Not(kind.trained))

        local = jax.tree.map(lambda x: jax.lax.pcast(x, AXIS, to="varying"), params)  # sums are taken below, once
        (loss, new), grads = jax.value_and_grad(loss_of, has_aux=True)(local)
        leaves, treedef = jax.tree.flatten(new)
        differs = [varies_over(leaf, AXIS) for leaf in leaves]
        flat, restore = ravel_pytree((loss, grads, [x for x, d in zip(leaves, differs, strict=True) if d]))
        loss, grads, means = restore(jax.lax.pmean(flat, AXIS))
        means = iter(means)
        return loss, grads, treedef.unflatten([next(means) if d else x for x, d in zip(leaves, differs, strict=True)])

    loss, grads, new = mean_over_shards(params, rest, images, labels)
    nnx.update(model, new)
    return loss, grads
