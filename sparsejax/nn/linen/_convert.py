"""``sparsify`` and ``densify`` for Linen: a masked dense module and its variables to sparse ones and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.core import FrozenDict, freeze

from sparsejax._checks import fail
from sparsejax._typing import PyTree
from sparsejax.kernels import ROW_MAJOR
from sparsejax.nn._convert import decide, describe, obstacle_to, rows_of_parameters
from sparsejax.nn._masks import flat_masks, skipped_layers
from sparsejax.nn._policy import Policy, check_policy
from sparsejax.nn._report import LayerReport, SparsifyReport
from sparsejax.nn.linen._model import dense_module, plan_of, sparse_module
from sparsejax.nn.linen._model_time import time_modules
from sparsejax.nn.linen._plan import Path, Plan, StoredLayer, at
from sparsejax.nn.linen._record import CalledLayer, record
from sparsejax.nn.linen._twin import Form, twin

Variables = dict[str, Any]
_NORM = "a batch norm of Linen, which keeps its own kernel; only NNX models get the fused one"


def sparsify(
    module: nn.Module,
    variables: Mapping[str, Any],
    masks: Mapping[str, Any] | None = None,
    *,
    sample_input: PyTree,
    min_sparsity: float = 0.8,
    policy: Policy = "measured",
    skip: Collection[str] = (),
) -> tuple[nn.Module, Variables, SparsifyReport]:
    """Replace the layers of a Linen module that pay as sparse ones.

    Every ``nn.Dense``, ``DenseGeneral`` (the projections of ``nn.MultiHeadDotProductAttention``), ``Einsum``, ``Conv``
    and ``ConvTranspose`` whose sparsity is at least ``min_sparsity`` is a candidate, wherever the module calls it: made
    in ``setup`` or under ``nn.compact``, shared, called several times, under ``nn.scan``, ``nn.vmap`` or ``nn.remat``,
    and inside subclasses that call ``super().__call__``. Its parameter ``kernel`` becomes the vector of the stored
    entries, at the same path; all other variables keep path and value.

    Args:
      module: an unbound Linen module. It is not changed.
      variables: what ``module.init`` returned, trained or not: ``{"params": ..., "batch_stats": ..., ...}``.
      masks: which weights are stored. None: those that are not zero; a kernel of zeros alone, from which a layer is to
        learn, stays dense. Or a dict from layer path ("Block_0/Dense_1") to a bool array of the kernel's shape, true
        keeps the weight; or a nested tree like ``variables["params"]`` whose leaves at ``kernel`` are masks (None and
        ``optax.MaskedNode()`` are no mask), as ``pruning.get_mask`` gives it.
      sample_input: an input of the module, a tuple of positional inputs, or a dict of keyword arguments, with the batch
        size to be used. Linen modules show their layers only when they are called: this call, which is abstract, is
        where they are found, so arguments such as ``train`` belong to it. Of arrays only shapes and dtypes matter.
      min_sparsity, policy, skip: as in ``sparsejax.nn.sparsify``.

    Returns:
      The sparse module: of a subclass of the module's class, with its fields and methods. Its variables, which share no
      array with the old ones: those given, with stored kernels, and the collection ``"pattern"``, the index arrays.
      ``apply`` takes the patterns from that collection where it is given and from the module where not, so training
      loops that keep ``params`` alone work. A `SparsifyReport`: a row per layer and per batch norm, and one for every
      other parameter that has a mask, or zeros and two or more axes; with policy "measured" also the time of a step of
      the whole module before and after.

    Raises:
      ValueError: an unknown policy or path, a mask of another shape or dtype, an input that the module does not take,
        or no collection ``"params"``.
      TypeError: not an unbound Linen module; the message says what to call.

    Source: Nikdan et al. 2023 (SparseProp), the rule of swapping layers that are 80 % sparse and measured faster.

    >>> module, x = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(4)]), jnp.ones((2, 8))
    >>> variables = module.init(jax.random.key(0), x)
    >>> masks = {"layers_0": np.eye(8, dtype=bool)}
    >>> sparse, values, report = sparsify(module, variables, masks, sample_input=x, policy="always")
    >>> values["params"]["layers_0"]["kernel"].shape, [row.action for row in report.rows]
    ((8,), ['sparse', 'dense'])
    >>> sparse.apply({"params": values["params"]}, x).shape
    (2, 4)
    """
    _check_module("sparsify", module, variables)
    check_policy(policy, sample_input)
    if not 0 <= min_sparsity <= 1:
        fail("sparsify", "min_sparsity", f"value {min_sparsity}", "a fraction between 0 and 1")
    seen = record("sparsify", module, variables, sample_input)
    params = variables["params"]
    called = {_joined(path): (path, layer) for path, layer in seen.layers.items()}
    parameters = _other_parameters(params, seen.layers, seen.holders)
    sparse_already = {_joined(path): layer for path, layer in seen.sparse.items()}
    by_path = flat_masks(_under_params(masks, params), called, sparse_already, parameters)
    skipped = skipped_layers(skip, called)
    rows: dict[str, LayerReport] = {}
    stored: list[StoredLayer] = []
    predictions: list[tuple[float, float]] = []
    options = (skipped, min_sparsity, policy, predictions)
    for name, (path, layer) in called.items():
        rows[name], sparse = _convert(path, layer, at(params, path), by_path.get(name), *options)
        if sparse is not None:
            stored.append(sparse)
    failing = _failing_layers(module, variables, tuple(stored), sample_input)
    for name, reason in failing.items():
        rows[name] = dataclasses.replace(rows[name], action="dense", reason=reason)
    plan = Plan(tuple(layer for layer in stored if _joined(layer.path) not in failing))
    for name, layer in sparse_already.items():
        pattern = layer.pattern  # pyright: ignore[reportAttributeAccessIssue]
        kind = type(layer).__name__
        rows[name] = LayerReport(name, kind, pattern.shape, pattern.sparsity, "sparse", "sparse already")
    others = map(_in_linen_words, rows_of_parameters(parameters, by_path))
    norms = [
        LayerReport(_joined(path), "BatchNorm", (size,), None, "dense", _NORM) for path, size in seen.norms.items()
    ]
    new, sparse = _sparse_variables(plan, variables), sparse_module(module, plan)
    times: tuple[float | None, float | None] = (None, None)
    if policy == "measured" and plan.layers:
        dense_s, sparse_s = time_modules((module, variables), (sparse, new), sample_input)
        times = (1e3 * dense_s, 1e3 * sparse_s)
    elif predictions:
        dense_s, sparse_s = (sum(seconds) for seconds in zip(*predictions, strict=True))
        times = (1e3 * dense_s, 1e3 * sparse_s)
    report = SparsifyReport((*rows.values(), *norms, *others), min_sparsity, *times, predicted=bool(predictions))
    return sparse, _like(variables, new), report


def densify(module: nn.Module, variables: Mapping[str, Any]) -> tuple[nn.Module, Variables]:
    """Turn a sparse Linen module and its variables into the dense ones of the same meaning.

    Args:
      module: what ``sparsify`` returned, or a clone of it. It is not changed.
      variables: its variables; without the collection ``"pattern"`` the module's own patterns hold.

    Returns:
      The module of the class before, with the fields that the sparse one has now, and its variables, which share no
      array with the old ones. Kernels have zeros where nothing was stored; ``pattern_masks(module)`` are the masks with
      which ``sparsify`` gives the same patterns again.

    Raises:
      TypeError: a module that ``sparsify`` did not make.

    >>> module, x = nn.Dense(4), jnp.ones((2, 4))
    >>> variables = module.init(jax.random.key(0), x)
    >>> masks = {"": np.eye(4, dtype=bool)}
    >>> sparse, values, _ = sparsify(module, variables, masks, sample_input=x, min_sparsity=0.5, policy="always")
    >>> dense, values = densify(sparse, values)
    >>> type(dense).__name__, values["params"]["kernel"].shape
    ('Dense', (4, 4))
    """
    plan = _checked_plan("densify", module)
    patterns = plan.patterns(variables.get("pattern", {}))
    new = {name: jax.tree.map(jnp.copy, tree) for name, tree in variables.items() if name not in ("params", "pattern")}
    new["params"] = plan.map_kernels(
        jax.tree.map(jnp.copy, variables["params"]), lambda layer, kernel: layer.scatter(kernel, patterns[layer.path])
    )
    return dense_module(module), _like(variables, new)


def pattern_masks(module: nn.Module, variables: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Return the masks of the stored weights by layer path, as ``sparsify`` takes them.

    Args:
      module: what ``sparsify`` returned.
      variables: with the collection ``"pattern"``, if patterns have changed since; None: the module's own patterns.

    Returns:
      bool array of the dense kernel's shape for each sparse layer, true where a weight is stored.

    Raises:
      TypeError: a module that ``sparsify`` did not make.

    >>> module, x = nn.Dense(2), jnp.ones((1, 2))
    >>> variables = module.init(jax.random.key(0), x)
    >>> sparse, _, _ = sparsify(module, variables, sample_input=x, min_sparsity=0.0, policy="always")
    >>> pattern_masks(sparse)[""].tolist()
    [[True, True], [True, True]]
    """
    plan = _checked_plan("pattern_masks", module)
    patterns = plan.patterns((variables or {}).get("pattern", {}))
    return {_joined(layer.path): layer.mask(patterns[layer.path]) for layer in plan.layers}


def _convert(
    path: Path,
    layer: CalledLayer,
    parameters: Mapping[str, Any],
    mask: Any,
    skipped: Collection[str],
    min_sparsity: float,
    policy: Policy,
    predictions: list[tuple[float, float]],
) -> tuple[LayerReport, StoredLayer | None]:
    """What to do with a layer: its row, and how it is stored where it becomes sparse."""
    name, form = _joined(path), layer.forms[0]
    kernel, bias = (nn.meta.unbox(parameters.get(part)) for part in ("kernel", "bias"))
    axis = _stack_axis(form, kernel, bias)
    kernel, bias, mask = (_in_front(values, axis or 0) for values in (kernel, bias, mask))
    reason = _linen_obstacle(layer, parameters, axis)
    try:
        dense = twin(form, kernel, bias)
    except (TypeError, ValueError) as error:  # an option that NNX does not take, named by the message
        reason = str(error)
        dense = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
        dense.kernel = nnx.Param(kernel)
    shape = tuple(nn.meta.unbox(parameters["kernel"]).shape)
    row = dataclasses.replace(describe(name, dense, mask), kind=layer.name, shape=shape)
    reason = obstacle_to(row, dense, mask, skipped, {}, min_sparsity) or reason
    if reason is not None:
        return dataclasses.replace(row, reason=reason), None
    row, sparse = decide(row, dense, mask, policy, layer.calls, predictions, ROW_MAJOR)
    return row, None if sparse is None else StoredLayer.of(path, layer.name, sparse, shape, axis or 0)


def _stack_axis(form: Form, kernel: Any, bias: Any) -> int | None:
    """Where a stacked kernel has its axis: 0 if it is not stacked or stacked several times, None if nowhere fits."""
    shape = tuple(kernel.shape)
    if shape[len(shape) - len(form.kernel_shape) :] != form.kernel_shape and len(shape) != len(form.kernel_shape) + 1:
        return None
    if len(shape) != len(form.kernel_shape) + 1:
        return 0

    def fits(axis: int) -> bool:
        pairs = [(shape, form.kernel_shape)]
        if bias is not None and form.bias_shape is not None:
            pairs.append((tuple(bias.shape), form.bias_shape))
        return all(whole[:axis] + whole[axis + 1 :] == part for whole, part in pairs)

    return next((axis for axis in (0, 1) if fits(axis)), None)  # stored entries have no third axis


def _in_front(values: Any, axis: int) -> Any:
    """The array with the axis of a stack in front."""
    return values if values is None or not axis else np.moveaxis(np.asarray(values), axis, 0)


def _linen_obstacle(layer: CalledLayer, parameters: Mapping[str, Any], axis: int | None) -> str | None:
    """What only Linen has that keeps a layer dense, or None."""
    kernel = parameters["kernel"]
    if isinstance(kernel, nn.meta.AxisMetadata):
        box = type(kernel).__name__
        return f"kernel in a {box}, which names axes of a dense kernel; flax.linen.unbox(variables) takes it off"
    if len(layer.forms) > 1:
        return "called with several einsum strings"
    if layer.inside is not None:
        return f"its kernel is changed by {layer.inside} before each call"
    if axis is None:
        return f"stacked along an axis that stored entries do not have: {kernel.shape} of {layer.forms[0].kernel_shape}"
    return None


def _failing_layers(
    module: nn.Module, variables: Mapping[str, Any], stored: tuple[StoredLayer, ...], sample_input: PyTree
) -> dict[str, str]:
    """The layers with which the sparse module cannot run, by path, and why: others read their kernels, say."""

    def failure(layers: tuple[StoredLayer, ...]) -> str | None:
        plan = Plan(layers)
        try:
            record("sparsify", sparse_module(module, plan), _sparse_variables(plan, variables), sample_input)
        except ValueError as error:
            return str(error).partition("The model raised ")[2]
        return None

    if not stored or failure(stored) is None:
        return {}
    failures = {_joined(layer.path): failure((layer,)) for layer in stored}
    reasons = {path: f"the module cannot run with it sparse: {text}" for path, text in failures.items() if text}
    return reasons or {path: "the module cannot run with these layers sparse together" for path in failures}


def _sparse_variables(plan: Plan, variables: Mapping[str, Any]) -> Variables:
    """Copies of the variables, with stored kernels and the patterns."""
    new = {name: jax.tree.map(jnp.copy, tree) for name, tree in variables.items() if name != "params"}
    params = jax.tree.map(jnp.copy, variables["params"])
    new["params"] = plan.map_kernels(params, lambda layer, kernel: layer.gather(kernel))
    if plan.layers:
        new["pattern"] = _merged(new.get("pattern", {}), plan.pattern_collection())
    return new


def _other_parameters(
    params: Mapping[str, Any], layers: Collection[Path], holders: Mapping[Path, str]
) -> dict[str, tuple[str, Any]]:
    """Parameters that are not the kernel of a layer: by path, the class that holds them and a variable."""
    others: dict[str, tuple[str, Any]] = {}
    leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda node: isinstance(node, nn.meta.AxisMetadata))
    for keys, leaf in leaves[0]:
        *path, name = (str(getattr(key, "key", key)) for key in keys)
        if not (name == "kernel" and tuple(path) in layers):
            others[_joined((*path, name))] = (holders.get(tuple(path), "-"), nnx.Param(nn.meta.unbox(leaf)))
    return others


def _in_linen_words(row: LayerReport) -> LayerReport:
    """A row of a parameter with a reason that holds for Linen, which has no ``register_sparse``."""
    if not row.reason.startswith("held by class"):
        return row
    reason = f"held by class {row.kind}, which sparsify does not know"
    return dataclasses.replace(row, reason=reason if row.kind != "-" else "not called by the module on sample_input")


def _under_params(masks: Any, params: Mapping[str, Any]) -> Any:
    """The masks below ``"params"``, for a tree of all collections."""
    whole = isinstance(masks, Mapping) and set(masks) == {"params"} and "params" not in params
    return masks["params"] if whole else masks


def _joined(path: Collection[str]) -> str:
    return "/".join(path)


def _merged(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings in one; of `SparseDense` layers inside the collection has patterns already."""
    both = {name: _merged(tree[name], other[name]) for name in tree if name in other}
    return {**tree, **other, **both}


def _like(variables: Mapping[str, Any], new: Variables) -> Any:
    return freeze(new) if isinstance(variables, FrozenDict) else new


def _checked_plan(function: str, module: Any) -> Plan:
    plan = plan_of(module)
    if plan is None:
        rule = "a module that sparsejax.nn.linen.sparsify made"
        hint = f"For NNX, call sparsejax.nn.{function}." if isinstance(module, nnx.Module) else ""
        fail(function, "module", f"type {type(module).__name__}", rule, hint, TypeError)
    return plan


def _check_module(function: str, module: Any, variables: Any) -> None:
    """Refuse anything but an unbound Linen module with its variables, and say what to call instead."""
    hint = ""
    if isinstance(module, nnx.Module):
        hint = "For NNX, call sparsejax.nn.sparsify(model, ...)."
    elif hasattr(module, "params") and hasattr(module, "opt_state"):
        hint = "Call sparsejax.nn.linen.sparsify_train_state(state, ...)."
    elif isinstance(module, Mapping):
        hint = "The module comes first, then its variables."
    elif isinstance(module, type):
        hint = "Pass an instance of the class."
    if not isinstance(module, nn.Module):
        rule = "a flax.linen.Module"
        fail(function, "module", f"type {type(module).__name__}", rule, hint, TypeError)
    if module.scope is not None:
        hint = "Pass module.unbind()[0] and its variables."
        fail(function, "module", "variables bound to it", "an unbound module", hint, TypeError)
    if plan_of(module) is not None:
        hint = "Convert with sparsejax.nn.linen.densify first, to change its patterns."
        fail(function, "module", "sparse layers already", "a dense module", hint)
    if not isinstance(variables, Mapping):
        rule = "a dict of collections, as module.init returns it"
        fail(function, "variables", f"type {type(variables).__name__}", rule, error=TypeError)
    if "params" not in variables:
        names = ", ".join(map(repr, variables)) or "none"
        hint = 'Write {"params": params} for parameters alone.'
        fail(function, "variables", f"collections {names}", "a collection 'params'", hint)
