"""The optimizer of a run, and which layers it prunes."""

from __future__ import annotations

from typing import Any

import optax
from flax import nnx

from sparsejax import pruning
from sparsejax.train._config import TrainConfig
from sparsejax.train.plans._plan import Plan

# Part of the run over which the learning rate rises, and the part of the highest rate where it starts.
_WARM_UP = 0.05
_WARM_UP_START = 0.1


def inner_optimizer(config: TrainConfig, plan: Plan) -> optax.GradientTransformation:
    """SGD with momentum and L2 weight decay; the learning rate warms up, then follows a cosine to 0."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=_WARM_UP_START * config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=max(1, round(_WARM_UP * plan.total)),
        decay_steps=max(2, plan.total),
    )
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(schedule, momentum=config.momentum))


def prunable(kept_dense: tuple[str, ...]) -> pruning.Filter:
    """Filter of the leaves that are pruned: all kernels but those of the layers that stay dense."""
    names = {f"{path}/kernel" for path in kept_dense}

    def not_kept(path: str, leaf: Any) -> bool:
        return path not in names

    return pruning.is_kernel() & not_kept


def optimizer(config: TrainConfig, plan: Plan, kept_dense: tuple[str, ...]) -> optax.GradientTransformation:
    """The optimizer of a run: the inner one, wrapped so that it prunes.

    Args:
      config: the run.
      plan: its phases.
      kept_dense: paths of the layers that are not pruned.
    """
    inner = inner_optimizer(config, plan)
    return inner if plan.method is None else pruning.pruned(inner, plan.method, where=prunable(kept_dense))


def layers_kept_dense(model: nnx.Module, channels: int, num_classes: int | None) -> tuple[str, ...]:
    """Paths of the layers that read the image or write the logits: convolutions of its channels, and the classifier.

    They hold a small part of the weights and cost the most accuracy when pruned.

    Source: uniform sparsity as in Evci et al. 2020, "RigL", section 3, and Peste et al. 2021, "AC/DC", appendix.

    >>> from sparsejax.models import ConvNet
    >>> layers_kept_dense(ConvNet(10, in_features=1, widths=(4, 8), rngs=nnx.Rngs(0)), 1, 10)
    ('convs/0', 'fc')
    """
    kept = []
    for path, module in nnx.iter_modules(model):
        reads = isinstance(module, nnx.Conv) and module.in_features == channels
        writes = isinstance(module, nnx.Linear) and module.out_features == num_classes
        if reads or writes:
            kept.append("/".join(map(str, path)))
    return tuple(kept)
