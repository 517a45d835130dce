"""What a run trains: network, optimizer and plan, from a configuration and its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from sparsejax import models, nn, pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train._fixed_mask import FixedMask, fix_masks
from sparsejax.train._inputs import Inputs
from sparsejax.train._optimizer import inner_optimizer, layers_kept_dense, optimizer, prunable, structure_of
from sparsejax.train._source import Network, load_network, masks_of
from sparsejax.train._steps import StepKind
from sparsejax.train.plans._methods import METHODS
from sparsejax.train.plans._plan import Plan

Masks = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to be trained.

    Attributes:
      model: the module; its first forward pass is that of the first step.
      optimizer: of the model.
      inner: the optimizer without pruning, for comparisons.
      plan: the phases.
      kind: what a step does.
      kept_dense: paths of the layers that are not pruned.
      capacity: what the method will keep; None without one.
      fixed: the masks of method "fixed"; None for the others.
      masks: of the network that the run starts from.
      notes: one sentence for each adaptation of it.
    """

    model: nnx.Module
    optimizer: nnx.Optimizer[Any]
    inner: optax.GradientTransformation
    plan: Plan
    kind: StepKind
    kept_dense: tuple[str, ...]
    capacity: pruning.PruningReport | None
    fixed: FixedMask | None
    masks: Masks
    notes: tuple[str, ...]


def prepare(
    config: TrainConfig,
    inputs: Inputs,
    model: nnx.Module | None,
    masks: Masks | None = None,
    *,
    stored: Collection[str] | None = None,
    measure: bool = True,
) -> Prepared:
    """Build or load the network, and make its optimizer and the plan.

    Args:
      config: the run.
      inputs: its data.
      model: a module instead of the one that the configuration names; it is not changed.
      masks: of the module, bool arrays by layer path; its zeros and patterns if None.
      stored: method "fixed": layers that an earlier call chose to store compressed; None chooses.
      measure: choose by measured times; otherwise by the masks alone.
    """
    network = _network(config, inputs, model, masks)
    kind = _kind(config, network.model)
    if config.method in ("fixed", "dense"):
        return _inside_a_mask(config, inputs, network, kind, stored, measure)
    channels, classes = inputs.image_shape[-1], inputs.num_classes
    kept = layers_kept_dense(network.model, channels, classes, config.include, config.exclude)
    masks = {path: mask for path, mask in network.masks.items() if config.method != "acdc"}
    if masks:
        # Pruned layers stay pruned, wherever they are; methods that keep the counts have none for the others.
        keeps_counts = config.method in ("rigl", "set", "static")
        kernels = nn.dense_kernels(network.model)
        others = {path for path in kernels if path not in masks} if keeps_counts else set[str]()
        kept = tuple(path for path in dict.fromkeys((*kept, *sorted(others))) if path not in masks)
    plan = METHODS[config.method](config, inputs.steps_per_epoch, masks)
    inner = inner_optimizer(config, plan)
    trained = nnx.Optimizer(network.model, optimizer(config, plan, kept), wrt=nnx.Param)
    params = nnx.as_pure(nnx.state(network.model, nnx.Param))
    structure = structure_of(config)
    options: dict[str, Any] = {} if structure is None else {"structure": structure}
    assert plan.method is not None
    capacity = pruning.report(params, plan.method, where=prunable(kept), **options)
    if masks and config.method in ("rigl", "set", "static"):
        _impose(network.model, trained, masks)
    else:
        # Methods that start sparse: the first forward pass must be that of the sparse network.
        nnx.update(network.model, pruning.forward_params(params, nnx.as_pure(trained.opt_state)))
    return Prepared(network.model, trained, inner, plan, kind, kept, capacity, None, masks, network.notes)


def _network(config: TrainConfig, inputs: Inputs, model: nnx.Module | None, masks: Masks | None) -> Network:
    if model is not None:
        stored = nn.pattern_masks(model)
        dense = nn.densify(model)
        if masks is None:
            masks = masks_of(dense, stored)
        return Network(dense, {path: np.asarray(mask) for path, mask in masks.items()}, config.model)
    if config.source:
        options: Any = {"num_classes": inputs.num_classes, "image_shape": inputs.image_shape}
        return load_network(config.source, config.model, new_head=config.new_head, seed=config.seed, **options)
    height, width, channels = inputs.image_shape
    rngs = nnx.Rngs(config.seed)
    built = models.build(config.model, inputs.num_classes or 0, channels, (height, width), rngs)
    return Network(built, {}, config.model)


def _inside_a_mask(
    config: TrainConfig, inputs: Inputs, network: Network, kind: StepKind, stored: Collection[str] | None, measure: bool
) -> Prepared:
    """Method "fixed", and "dense", whose weights are all free."""
    plan = METHODS[config.method](config, inputs.steps_per_epoch, {})
    inner = inner_optimizer(config, plan)
    model, fixed = network.model, None
    if config.method == "fixed":
        head = _head(model)
        policy: Any = {"policy": "always"}
        if measure and stored is None:
            sample = jax.ShapeDtypeStruct((inputs.batch_size, *inputs.image_shape), np.float32)
            policy = {"policy": "measured", "sample_input": sample}
        keep = () if head is None or head in network.masks else (head,)
        fixed = fix_masks(model, network.masks, stored=stored, keep_dense=keep, **policy)
        model = fixed.model
    if kind.head is not None:
        for _, module in nnx.iter_modules(model):
            if isinstance(module, nnx.BatchNorm):
                module.use_running_average = True
        trained = nnx.Optimizer(model, inner, wrt=kind.trained)
    else:
        trained = nnx.Optimizer(model, inner, wrt=nnx.Param) if fixed is None else fixed.optimizer(inner)
    masks = {} if fixed is None else fixed.masks
    return Prepared(model, trained, inner, plan, kind, (), None, fixed, masks, network.notes)


def _kind(config: TrainConfig, model: nnx.Module) -> StepKind:
    head = _head(model) if config.freeze_backbone else None
    if config.freeze_backbone and head is None:
        rule = "a classifier called fc, head or classifier, to train alone"
        fail("train", "freeze_backbone", "a model without one", rule)
    return StepKind(config.label_smoothing, config.precision, head)


def _head(model: nnx.Module) -> str | None:
    """Path of the classifier; None where it has no usual name."""
    try:
        return models.find_head(model)
    except ValueError:
        return None


def _impose(model: nnx.Module, trained: nnx.Optimizer[Any], masks: Masks) -> None:
    """Start from the masks of the network instead of random ones."""
    tree: dict[str, Any] = {}
    for path, mask in masks.items():
        node = tree
        for part in path.split("/"):
            node = node.setdefault(part, {})
        node["kernel"] = jax.numpy.asarray(mask)
    state = nnx.state(model, nnx.Param)
    new, opt_state = pruning.prune(trained.tx, state, trained.opt_state, tree)
    nnx.update(model, new)
    trained.opt_state = opt_state
