"""Checkpoints: whole or absent, never half, whenever the process is killed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax import nn
from sparsejax._checks import fail

_KEPT = 2
_MASK = "mask/"
_CAPACITY = "capacity/"
# Patterns are rebuilt from their masks, which compress to a fraction of a bit per weight.
_STORED = nnx.Not(nn.Pattern)


class Checkpoints:
    """The last checkpoints of a run, written by orbax.

    A checkpoint is a flat dictionary of arrays: every variable of the model (parameters, batch statistics, random
    state) and of the optimizer (moments, masks, counters) by its path, and by layer the masks of the sparse network, or
    of the last one there was, and its room for stored weights.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder, make it if absent, and remove what a kill left unfinished in it."""
        import orbax.checkpoint as ocp

        self._args = ocp.args
        # Saving is awaited: orbax writes under a temporary name and renames at the end.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> Checkpoints:
        """Return the checkpoints, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        self._manager.close()

    def latest(self) -> int | None:
        """Steps done at the last checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        support: Mapping[str, np.ndarray] | None,
        capacity: Mapping[str, int],
    ) -> None:
        """Write a checkpoint and remove the oldest."""
        arrays: dict[str, Any] = dict(_arrays("model", model)) | dict(_arrays("optimizer", optimizer))
        arrays |= {_MASK + path: mask for path, mask in (support or {}).items()}
        arrays |= {_CAPACITY + path: np.asarray(entries) for path, entries in capacity.items()}
        self._manager.save(step, args=self._args.StandardSave(arrays))

    def load(self, step: int) -> Mapping[str, Any]:
        """The arrays of a checkpoint."""
        return self._manager.restore(step, args=self._args.StandardRestore())


def masks_in(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Masks of the sparse network by layer; empty before the first one."""
    return {path: np.asarray(array) for path, array in _below(_MASK, arrays)}


def capacity_in(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Room for stored weights by layer; empty before the first sparse network."""
    return {path: int(array) for path, array in _below(_CAPACITY, arrays)}


def _below(prefix: str, arrays: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name.removeprefix(prefix), array) for name, array in arrays.items() if name.startswith(prefix)]


def assign(arrays: Mapping[str, Any], model: nnx.Module, optimizer: nnx.Optimizer) -> None:
    """Set every variable of a model and its optimizer to the value in a checkpoint.

    Raises:
      ValueError: the checkpoint belongs to a model or optimizer of another structure.
    """
    for prefix, node in (("model", model), ("optimizer", optimizer)):
        expected = dict(_arrays(prefix, node))
        stored = {name: array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
        for name in sorted(expected.keys() ^ stored.keys()):
            got = "an entry" if name in stored else "no entry"
            fail("train", f"the checkpoint, at {name!r},", got, "the variables of this model and optimizer")
        state = nnx.state(node, _STORED)
        leaves, treedef = jax.tree.flatten(state)
        values = [_value(name, stored[name], leaf) for name, leaf in zip(expected, leaves, strict=True)]
        nnx.update(node, treedef.unflatten(values))


def _arrays(prefix: str, node: Any) -> list[tuple[str, jax.Array]]:
    """Every variable as a plain array, by its path, in the order of the state's leaves."""
    entries, _ = jax.tree_util.tree_flatten_with_path(nnx.state(node, _STORED))
    return [
        (f"{prefix}/{jax.tree_util.keystr(path, simple=True, separator='/')}", _plain(leaf)) for path, leaf in entries
    ]


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _value(name: str, array: Any, leaf: jax.Array) -> jax.Array:
    plain = _plain(leaf)
    if array.shape != plain.shape or array.dtype != plain.dtype:
        got = f"{array.dtype}{list(array.shape)}"
        fail("train", f"the checkpoint, at {name!r},", got, f"{plain.dtype}{list(plain.shape)}")
    value = jnp.asarray(array)
    return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else value
