"""The variables of a run as a flat dictionary of arrays, and back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparsejax import nn
from sparsejax._checks import fail

_MASK = "mask/"
_CAPACITY = "capacity/"
_LOG = "log"
# Patterns are rebuilt from their masks, which compress to a fraction of a bit per weight.
_STORED = nnx.Not(nn.Pattern)


def collect(
    model: nnx.Module,
    optimizer: nnx.Optimizer[Any],
    support: Mapping[str, np.ndarray] | None,
    capacity: Mapping[str, int],
    log: str = "",
) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint, on the host.

    Args:
      model, optimizer: all their variables are taken.
      support: masks by layer of the newest sparse network.
      capacity: room for stored weights by layer.
      log: the training log so far, as text.
    """
    variables = _arrays("model", model) + _arrays("optimizer", optimizer)
    arrays = {name: np.asarray(array, order="C") for name, array in variables}
    arrays |= {_MASK + path: np.asarray(mask, order="C") for path, mask in (support or {}).items()}
    arrays |= {_CAPACITY + path: np.asarray(entries) for path, entries in capacity.items()}
    return arrays | {_LOG: np.frombuffer(zlib.compress(log.encode(), 1), np.uint8)}


def log_in(arrays: Mapping[str, Any]) -> str | None:
    """Return the training log up to the checkpoint; None if it has none."""
    return None if _LOG not in arrays else zlib.decompress(np.asarray(arrays[_LOG]).tobytes()).decode()


def masks_in(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Masks of the sparse network by layer; empty before the first one."""
    return {path: np.asarray(array) for path, array in _below(_MASK, arrays)}


def capacity_in(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Room for stored weights by layer; empty before the first sparse network."""
    return {path: int(array) for path, array in _below(_CAPACITY, arrays)}


def _below(prefix: str, arrays: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name.removeprefix(prefix), array) for name, array in arrays.items() if name.startswith(prefix)]


def assign(arrays: Mapping[str, Any], model: nnx.Module, optimizer: nnx.Optimizer[Any]) -> None:
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
