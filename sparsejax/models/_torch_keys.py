"""Bring the key names of published sparse checkpoints to plain torchvision names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from sparsejax._checks import fail

_FUNCTION = "load_torch_state_dict"
_MASK = re.compile(r"(?P<layer>.+?)\.(?:_layer\.)?_?(?P<kind>weight|bias)_mask")


def plain_names(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Separate values from masks, under the names an unwrapped model would have.

    ``module.`` (data-parallel training) and ``._layer`` (the pruning wrapper) disappear,
    ``num_batches_tracked`` is dropped, and ``L._weight_mask``, ``L.weight_mask`` or ``L._layer.weight_mask``
    becomes the mask of ``L.weight``.

    Args:
      tensors: arrays by their names in the checkpoint.

    Returns:
      values by plain name, and boolean masks (True keeps) by the plain name of the tensor that they mask.

    Raises:
      ValueError: two names that mean the same tensor, or a mask with values other than 0 and 1.

    >>> eye = np.eye(2)
    >>> values, masks = plain_names({"module.fc._layer.weight": eye, "module.fc._weight_mask": eye})
    >>> list(values), list(masks), masks["fc.weight"].tolist()
    (['fc.weight'], ['fc.weight'], [[True, False], [False, True]])
    """
    values: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for original, array in tensors.items():
        name = original.removeprefix("module.")
        if name.endswith("num_batches_tracked"):
            continue
        matched = _MASK.fullmatch(name)
        if matched:
            target, name = masks, f"{matched['layer']}.{matched['kind']}"
            array = _as_mask(original, array)
        else:
            target, name = values, name.replace("._layer.", ".")
        if name in target:
            fail(_FUNCTION, "checkpoint", f"two entries for {name!r}", "one", f"{original!r} is the second.")
        target[name] = array
    return values, masks


def _as_mask(name: str, array: np.ndarray) -> np.ndarray:
    if not np.isin(array, (0, 1)).all():
        fail(_FUNCTION, f"mask {name!r}", "values other than 0 and 1", "1 to keep a weight and 0 to prune it")
    return array.astype(bool)
