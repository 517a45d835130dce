"""Masks and paths that a user gives to ``sparsify``: by the path of a layer, or of a parameter."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import optax
from flax import nnx

from sparsejax._checks import fail


def flat_masks(
    masks: Any, layers: Collection[str], sparse: Collection[str], parameters: Collection[str]
) -> dict[str, Any]:
    """Return masks by path: of a dense layer, for its kernel, or of any other parameter of the model.

    Raises:
      TypeError: not a mapping.
      ValueError: a path that the model does not have, or one of a layer that is sparse already.
    """
    if masks is None:
        return {}
    if not isinstance(masks, Mapping):
        expected = "a dict by layer path or a nested tree like nnx.state(model)"
        fail("sparsify", "masks", f"type {type(masks).__name__}", expected, error=TypeError)
    flat: dict[str, Any] = {}
    for path, mask in _leaves(masks, ()):
        layer = path.removesuffix("kernel").removesuffix("/") if path.split("/")[-1] == "kernel" else path
        if layer in sparse:
            hint = "Convert with sparsejax.densify first, to change its pattern."
            fail(
                "sparsify", "masks", f"path '{path}', of a layer that is sparse already", "paths of dense layers", hint
            )
        known = layer if layer in layers else path
        if known not in layers and known not in parameters:
            _unknown("masks", path, [*layers, *parameters])
        flat[known] = mask
    return flat


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _leaves(child, (*path, str(key)))
        return
    mask = node.get_value() if isinstance(node, nnx.Variable) else node
    if mask is None or isinstance(mask, optax.MaskedNode):
        return
    yield "/".join(path), mask


def skipped_layers(skip: Collection[str], layers: Collection[str]) -> set[str]:
    """Return the paths of the layers that ``skip`` names, themselves or through a module they are in."""
    if isinstance(skip, str):
        fail("sparsify", "skip", f"the string {skip!r}", "a collection of paths", error=TypeError)
    skipped: set[str] = set()
    for name in skip:
        inside = {path for path in layers if path == name or path.startswith(f"{name}/")}
        if not inside:
            _unknown("skip", name, layers)
        skipped |= inside
    return skipped


def _unknown(operand: str, path: str, known: Collection[str]) -> None:
    near = difflib.get_close_matches(path, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"The model has {', '.join(map(repr, known)) or 'none'}."
    if "" in known:
        hint = "The model is a single layer, whose path is ''."
    fail("sparsify", operand, f"path '{path}'", "a path of a layer or parameter of the model", hint)
