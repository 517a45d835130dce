"""``sparsify`` and ``densify``: a masked dense model to a sparse one and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from sparsejax._checks import fail
from sparsejax._compat import is_traced
from sparsejax._typing import PyTree
from sparsejax.kernels import BATCH_MINOR, ROW_MAJOR, Layout, Layouts
from sparsejax.nn._batch_norm import BatchNorm
from sparsejax.nn._graph import modules_of, path_string, replace_modules, tied_modules, with_class
from sparsejax.nn._layer import SparseLayer
from sparsejax.nn._layer_checks import stored_entries
from sparsejax.nn._layout_plan import PlannedLayer, describe_layout, has_layout, plan_layouts
from sparsejax.nn._masks import flat_masks, skipped_layers
from sparsejax.nn._model_time import time_models
from sparsejax.nn._policy import Policy, check_policy, nominal_call, predict_layers, time_layers
from sparsejax.nn._record import Call, record_inputs
from sparsejax.nn._registry import convert, registered_classes, single, stored_mask, to_dense
from sparsejax.nn._report import LayerReport, SparsifyReport

M = TypeVar("M", bound=nnx.Module)


def sparsify(
    model: M,
    masks: Mapping[str, Any] | nnx.State[Any, Any] | None = None,
    *,
    min_sparsity: float = 0.8,
    policy: Policy = "measured",
    sample_input: PyTree = None,
    skip: Collection[str] = (),
) -> tuple[M, SparsifyReport]:
    """Replace the layers of a dense model that pay as sparse ones.

    Every ``nnx.Linear``, ``LinearGeneral`` (the projections of ``nnx.MultiHeadAttention``), ``Einsum``, ``Conv``,
    ``ConvTranspose`` and ``LoRALinear``, and every class added by ``register_sparse``, whose sparsity is at least
    ``min_sparsity`` is a candidate, wherever it sits: in modules of any class, lists, dicts, stacked by ``nnx.vmap``
    for ``nnx.scan``, shared between places (it stays shared). Where at least one
    layer becomes sparse, each ``nnx.BatchNorm`` becomes a ``sparsejax.nn.BatchNorm`` with the same variables, so
    that activations keep the layout of the sparse layers and ``sparsejax.nn.norm_act`` runs fused. Subclasses of
    these layers, and layers that share a Variable with another module, stay as they are; the report says so.

    Args:
      model: an NNX module. It is not changed.
      masks: which weights are stored. None: those that are not zero. Or a dict from layer path
        ("layer1/0/conv1") to a bool array of the kernel's shape, true keeps the weight; or a nested tree such
        as an ``nnx.State`` whose leaves at ``kernel`` are masks (None and ``optax.MaskedNode()`` are no
        mask). Layers without a mask go by their zeros; a kernel that is all zeros is an initial value and stays dense.
        Weights outside a mask are dropped. A mask of a parameter that is not the kernel of such a layer changes nothing
        but the report.
      min_sparsity: fraction of weights that are not stored, in [0, 1].
      policy: "measured" times each candidate as dense and as sparse layer, forward and backward, on the input
        shapes that ``sample_input`` leads to, and replaces it if that is faster; "rule" predicts both times
        by a cost model fitted to benchmarks (float32, one thread), without running anything; "always" replaces every
        candidate.
      sample_input: an input of the model, a tuple of positional inputs, or a dict of keyword arguments, with the batch
        size to be used; required by "measured". Of arrays only shapes and dtypes matter. Without it "rule" assumes
        large inputs: 4096 rows for a linear layer, 64 images of 32 pixels per axis (or twice the window) for a
        convolution.
      skip: paths of layers, or of modules with all that is in them, that stay dense.

    Returns:
      The new model, which shares no array with the old one, and a `SparsifyReport`: a row per layer, and one for every
      other parameter that has a mask, or zeros and two or more axes; a ``bias`` is in it only if it has a mask, since
      zeros are what it starts with. For the state of an optimizer see ``carry_optimizer``.

    Raises:
      ValueError: an unknown policy or path, a mask of another shape or dtype, no ``sample_input`` where
        needed, or one that the model or one of its layers does not take; the message names the layer.
      TypeError: not an NNX module: a Linen module, parameters, a ``TrainState``; the message says what to call.

    Source: Nikdan et al. 2023 (SparseProp), the rule of swapping layers that are 80 % sparse and measured
      faster.

    >>> model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    >>> sparse, report = sparsify(model, {"": np.eye(4, dtype=bool)}, min_sparsity=0.7, policy="always")
    >>> sparse.kernel.shape, report.rows[0].action
    ((4,), 'sparse')
    """
    _check_model("sparsify", model)
    check_policy(policy, sample_input)
    if not 0 <= min_sparsity <= 1:
        fail("sparsify", "min_sparsity", f"value {min_sparsity}", "a fraction between 0 and 1")
    old, model = model, nnx.clone(model, graph=True)
    classes = registered_classes()
    layers: dict[str, Any] = modules_of(model, (*classes, SparseLayer, nnx.BatchNorm))
    dense = {path: layer for path, layer in layers.items() if isinstance(layer, classes)}
    sparse_already = {path: layer for path, layer in layers.items() if isinstance(layer, SparseLayer)}
    parameters = _other_parameters(model, (*dense, *sparse_already))
    if masks is None and any(is_traced(layer.kernel[...]) for layer in dense.values()):
        hint = "Inside eval_shape or jit, weights do not say which of them are zero."
        fail("sparsify", "masks", "no value for a model inside a trace", "a mask for each layer to convert", hint)
    by_path = flat_masks(masks, dense, sparse_already, parameters)
    skipped, tied = skipped_layers(skip, layers), tied_modules(model)
    calls = None
    if policy != "always" and sample_input is not None:
        calls = record_inputs(model, sample_input, function="sparsify")

    rows: dict[str, LayerReport] = {}
    new: dict[int, nnx.Module] = {}
    predictions: list[tuple[float, float]] = []
    for path, layer in dense.items():
        mask = by_path.get(path)
        row = describe(path, layer, mask)
        obstacle = obstacle_to(row, layer, mask, skipped, tied, min_sparsity)
        if obstacle is not None:
            rows[path] = dataclasses.replace(row, reason=obstacle)
            continue
        rows[path], sparse = decide(
            row, layer, mask, policy, None if calls is None else calls.get(path, []), predictions, BATCH_MINOR
        )
        if sparse is not None:
            new[id(layer)] = sparse
    for path, layer in sparse_already.items():
        keep = stored_mask(layer)
        rows[path] = LayerReport(
            path,
            type(layer).__name__,
            keep.shape,
            1 - float(keep.mean()) if keep.size else 0.0,
            "sparse",
            "sparse already",
        )
    if new:
        for path, layer in layers.items():
            if type(layer) is nnx.BatchNorm:
                norm = new[id(layer)] = with_class(layer, BatchNorm)
                norm.layout = Layout.BATCH_MINOR
                reason = "fused, and has the layout of its neighbours"
                rows[path] = LayerReport(path, "BatchNorm", (layer.num_features,), None, "swapped", reason)
    others = rows_of_parameters(parameters, by_path)
    result = _unshared(replace_modules(model, new), old)
    rows |= _planned(result, sample_input, rows) if new else {}
    ordered = (*(rows[path] for path in layers if path in rows), *others)
    return result, SparsifyReport(ordered, min_sparsity, *_whole_model(policy, old, result, sample_input, predictions))


def densify(model: M) -> M:
    """Turn every sparse layer of a model into the plain Flax layer, and our batch norms into Flax's.

    Args:
      model: an NNX module. It is not changed.

    Returns:
      A new model; kernels have zeros where nothing was stored. A stored weight that is exactly 0 looks like
      one that is not: pass ``pattern_masks(model)`` to ``sparsify`` to get the same patterns back.

    Raises:
      ValueError: a sparse layer shares a Variable with another module, so that a dense one could not.

    >>> sparse, _ = sparsify(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), min_sparsity=0.0, policy="always")
    >>> densify(sparse).kernel.shape
    (4, 4)
    """
    _check_model("densify", model)
    old, model = model, nnx.clone(model, graph=True)
    tied = tied_modules(model)
    new: dict[int, nnx.Module] = {}
    for path, layer in modules_of(model, SparseLayer).items():
        if path in tied:
            fail("densify", f"layer '{path}'", f"a variable shared with '{tied[path]}'", "no shared variables")
        new[id(layer)] = to_dense(layer)
    for layer in modules_of(model, BatchNorm).values():
        plain: Any = with_class(layer, nnx.BatchNorm)
        if "layout" in vars(plain):
            del plain.layout
        new[id(layer)] = plain
    return _unshared(replace_modules(model, new), old)


def pattern_masks(model: nnx.Module) -> dict[str, np.ndarray]:
    """Return the masks of the stored weights by layer path, as ``sparsify`` takes them.

    Keep them beside a densified model: weights that are stored but exactly zero survive the way back.

    Args:
      model: an NNX module with sparse layers.

    Returns:
      bool array of the dense kernel's shape for each sparse layer, true where a weight is stored.

    >>> sparse, _ = sparsify(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), min_sparsity=0.0, policy="always")
    >>> pattern_masks(sparse)[""].tolist()
    [[True, True], [True, True]]
    """
    _check_model("pattern_masks", model)
    layers = modules_of(model, SparseLayer)
    return {path: stored_mask(layer) for path, layer in layers.items()}


def dense_kernels(model: nnx.Module) -> dict[str, np.ndarray]:
    """Return the kernels of the layers that ``sparsify`` knows as dense arrays, by layer path.

    Args:
      model: an NNX module; its layers may be dense or sparse.

    Returns:
      Array of the dense kernel's shape for each layer of a class that ``sparsify`` converts, dense or sparse; zeros
      where nothing is stored.

    Raises:
      ValueError: as ``densify``.

    >>> layer, mask = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), np.eye(2, dtype=bool)
    >>> sparse, _ = sparsify(layer, {"": mask}, min_sparsity=0.5, policy="always")
    >>> (dense_kernels(sparse)[""] != 0).tolist()
    [[True, False], [False, True]]
    """
    layers: dict[str, Any] = modules_of(densify(model), registered_classes())
    return {path: np.asarray(layer.kernel[...]) for path, layer in layers.items()}


def _check_model(function: str, model: object) -> None:
    """Refuse anything but an NNX module, and say what to call instead."""
    if isinstance(model, nnx.Module):
        return
    if isinstance(model, linen.Module):
        names = {"sparsify": "sparsify(module, variables, ...)", "densify": "densify(module, variables)"}
        hint = f"For Linen, call sparsejax.nn.linen.{names.get(function, 'pattern_masks(module)')}."
    elif hasattr(model, "params") and hasattr(model, "opt_state"):
        names = {"sparsify": "sparsify_train_state(state, ...)", "densify": "densify_train_state(state)"}
        hint = f"For Linen, call sparsejax.nn.linen.{names.get(function, 'pattern_masks(module)')}."
    elif isinstance(model, nnx.Optimizer):
        hint = "Pass the model, and then the optimizer to sparsejax.nn.carry_optimizer."
    elif isinstance(model, nnx.State):
        hint = "Build the module first: nnx.merge(graphdef, state)."
    elif isinstance(model, Mapping):
        hint = (
            "Parameters do not say which layers use them. Pass the NNX module that has them; for Linen, call "
            "sparsejax.nn.linen.sparsify(module, variables, ...)."
        )
    elif isinstance(model, type):
        hint = "Pass an instance of the class."
    else:
        hint = "Put the layers into a module, such as nnx.List or nnx.Sequential."
    fail(function, "model", f"type {type(model).__name__}", "an nnx.Module", hint, TypeError)


def describe(path: str, layer: Any, mask: Any) -> LayerReport:
    """The row of a layer before it is decided; without sparsity where only values that are not known would say."""
    kernel, name = layer.kernel[...], f"sparsify: layer '{path}'"
    if mask is None and is_traced(kernel):
        return LayerReport(path, type(layer).__name__, kernel.shape, None, "dense", "")
    limit = getattr(layer, "mask", None)
    keep = stored_entries(name, kernel, mask, None if limit is None else np.asarray(limit) != 0)
    sparsity = 1.0 - float(keep.mean()) if keep.size else 0.0
    return LayerReport(path, type(layer).__name__, kernel.shape, sparsity, "dense", "")


def obstacle_to(
    row: LayerReport, layer: Any, mask: Any, skipped: Collection[str], tied: Mapping[str, str], min_sparsity: float
) -> str | None:
    """Why the layer is no candidate, or None."""
    if row.path in skipped:
        return "named in skip"
    if type(layer) not in registered_classes():
        return "a subclass; what it adds would be lost. register_sparse converts it"
    if row.path in tied:
        return f"shares a variable with {tied[row.path]}"
    if row.sparsity is None:
        return "no mask, and zeros are not known inside a trace"
    if row.sparsity < min_sparsity:
        return f"sparsity below {min_sparsity:g}"
    if mask is None and row.sparsity == 1:
        return "all zeros and no mask: an initial value, from which it is to learn"
    return None


def decide(
    row: LayerReport,
    layer: Any,
    mask: Any,
    policy: Policy,
    calls: list[Call] | None,
    predictions: list[tuple[float, float]],
    layouts: Layouts,
) -> tuple[LayerReport, SparseLayer | None]:
    """What to do with a candidate: its row, and the sparse layer where that is taken.

    ``calls`` are the layer's inputs, None where nothing is known of them. ``layouts`` are those of a convolution. The
    seconds that the rule predicts of the dense layer and of the one that is taken go to ``predictions``.
    """
    try:
        sparse = convert(layer, mask)
    except ValueError as error:  # an option without a sparse counterpart, named by the message
        return dataclasses.replace(row, reason=str(error)), None
    if hasattr(sparse, "layouts"):
        sparse.layouts = layouts  # pyright: ignore[reportAttributeAccessIssue]
    if policy == "always":
        return dataclasses.replace(row, action="sparse", reason="policy 'always'"), sparse
    if calls is not None and not calls:
        return dataclasses.replace(row, reason="not called by the model on sample_input"), None
    if policy == "rule":
        dense_s, sparse_s = predict_layers(single(layer), single(sparse), calls or [nominal_call(single(layer))])
        predictions.append((dense_s, min(dense_s, sparse_s)))
        basis = "rule: predicted" if calls is not None else "rule: predicted at nominal size"
    else:
        assert calls is not None  # `check_policy` refuses to measure without an input
        dense_s, sparse_s = time_layers(single(layer), single(sparse), calls)
        row = dataclasses.replace(row, dense_ms=1e3 * dense_s, sparse_ms=1e3 * sparse_s)
        basis = "measured"
    if sparse_s >= dense_s:
        return dataclasses.replace(row, reason=f"{basis} {sparse_s / dense_s:.2f}x slower"), None
    return dataclasses.replace(row, action="sparse", reason=f"{basis} {dense_s / sparse_s:.2f}x faster"), sparse


def _planned(model: nnx.Module, sample_input: PyTree, rows: Mapping[str, LayerReport]) -> dict[str, LayerReport]:
    """Rows of the layers of ours with their layouts, which are planned where the model's input is known."""
    layers = modules_of(model, (SparseLayer, BatchNorm))
    if sample_input is not None:
        plan = plan_layouts(model, sample_input)
    else:
        between = "not planned without sample_input"
        plan = {
            path: PlannedLayer(BATCH_MINOR, between) if has_layout(layer) else PlannedLayer(ROW_MAJOR, "a linear layer")
            for path, layer in layers.items()
        }
    return {
        path: dataclasses.replace(
            rows[path],
            layout=describe_layout(planned),
        )
        for path, planned in plan.items()
        if path in rows
    }


def _whole_model(
    policy: Policy, old: nnx.Module, new: nnx.Module, sample_input: PyTree, predictions: list[tuple[float, float]]
) -> tuple[float | None, float | None, bool]:
    """Milliseconds of a step of the dense and the sparse model, and whether they are predicted; None if unknown."""
    if policy == "measured" and modules_of(new, SparseLayer):
        dense_s, sparse_s = time_models(old, new, sample_input)
        return 1e3 * dense_s, 1e3 * sparse_s, False
    if not predictions:
        return None, None, False
    dense_s, sparse_s = (sum(seconds) for seconds in zip(*predictions, strict=True))
    return 1e3 * dense_s, 1e3 * sparse_s, True


def _other_parameters(model: nnx.Module, layers: Collection[str]) -> dict[str, tuple[str, Any]]:
    """Parameters that are not the kernel of a layer: by path, the class that holds them and the variable."""
    nodes = list(nnx.iter_graph(model, graph=True))
    holders = {path: type(node).__name__ for path, node in nodes}
    return {
        path_string(path): (holders.get(path[:-1], "-"), node)
        for path, node in nodes
        if isinstance(node, nnx.Param) and not (path[-1:] == ("kernel",) and path_string(path[:-1]) in layers)
    }


def rows_of_parameters(parameters: Mapping[str, tuple[str, Any]], masks: Mapping[str, Any]) -> list[LayerReport]:
    """Rows of the parameters that have a mask, or zeros and two or more axes, and no sparse form."""
    rows: list[LayerReport] = []
    for path, (holder, variable) in parameters.items():
        value, mask = variable.get_value(), masks.get(path)
        if not hasattr(value, "shape"):
            continue
        is_vector = len(value.shape) < 2 or path.split("/")[-1] == "bias"  # a stack of biases has two axes
        if mask is None and (is_vector or is_traced(value)):
            continue
        keep = stored_entries(f"sparsify: parameter '{path}'", value, mask)
        sparsity = 1 - float(keep.mean()) if keep.size else 0.0
        if mask is None and sparsity == 0:
            continue
        reason = f"held by class {holder}, which sparsify does not know; register_sparse adds a class"
        if holder == "Embed":
            reason = "an embedding, whose rows are looked up, also where it is tied to the output layer (attend)"
        elif is_vector:
            reason = "one axis: a bias or a scale, not a matrix"
        rows.append(LayerReport(path, holder, tuple(value.shape), sparsity, "dense", reason))
    return rows


def _unshared(model: M, old: nnx.Module) -> M:
    """Copy the arrays that the model has in common with the old one: donating one's buffers leaves the other's."""
    shared = {id(leaf) for leaf in jax.tree.leaves(nnx.state(old)) if isinstance(leaf, jax.Array)}
    state = nnx.state(model)
    nnx.update(model, jax.tree.map(lambda leaf: jnp.copy(leaf) if id(leaf) in shared else leaf, state))
    return model
