"""The optimizer of a run, and which layers it prunes."""

from __future__ import annotations

import fnmatch
from typing import Any

import optax
from flax import nnx

from sparsejax import pruning
from sparsejax._checks import fail
from sparsejax.train._config import TrainConfig
from sparsejax.train.plans._plan import Plan

# The part of the highest learning rate where the warm-up starts.
_WARM_UP_START = 0.1
# Schedule "step": parts of the run after which the rate falls to a tenth; as in Iofinova et al. 2022.
_DROPS = (1 / 3, 2 / 3)


def learning_rates(config: TrainConfig, total: int) -> optax.Schedule:
    """Return the learning rate by the number of updates done: a linear warm-up, then the schedule.

    Source: warm-up as Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2; cosine as Loshchilov & Hutter
    2017, "SGDR", without restarts.

    >>> rate = learning_rates(TrainConfig(schedule="step", warmup=0.1, learning_rate=1.0), 30)
    >>> [round(float(rate(step)), 3) for step in (0, 3, 9, 10, 20)]
    [0.1, 1.0, 1.0, 0.1, 0.01]
    """
    rate, warmup = config.learning_rate, max(1, round(config.warmup * total)) if config.warmup else 0
    if config.schedule == "cosine":
        start = _WARM_UP_START * rate if warmup else rate
        return optax.warmup_cosine_decay_schedule(start, rate, warmup, max(2, total))
    rises = optax.linear_schedule(_WARM_UP_START * rate, rate, warmup) if warmup else optax.constant_schedule(rate)
    drops = {round(part * total): 0.1 for part in _DROPS} if config.schedule == "step" else {}
    falls = optax.piecewise_constant_schedule(1.0, drops)
    return lambda count: rises(count) * falls(count)


def inner_optimizer(config: TrainConfig, plan: Plan) -> optax.GradientTransformation:
    """SGD with momentum and L2 weight decay, or AdamW, at the learning rates of the run."""
    rates = learning_rates(config, plan.total)
    if config.optimizer == "adamw":
        return optax.adamw(rates, weight_decay=config.decay(plan.total))
    return optax.chain(optax.add_decayed_weights(config.decay(plan.total)), optax.sgd(rates, momentum=config.momentum))


def prunable(kept_dense: tuple[str, ...]) -> pruning.Filter:
    """Filter of the leaves that are pruned: all kernels but those of the layers that stay dense."""
    names = {f"{path}/kernel" for path in kept_dense}

    def not_kept(path: str, leaf: Any) -> bool:
        return path not in names

    return pruning.is_kernel() & not_kept


def structure_of(config: TrainConfig) -> Any:
    """Return the structure that a configuration names; None for single weights.

    >>> from sparsejax.pruning import n_of_m
    >>> structure_of(TrainConfig(structure="2:4")) == n_of_m(2, 4)
    True
    """
    if not config.structure:
        return None
    if config.structure.startswith("block:"):
        rows, columns = config.structure.removeprefix("block:").split("x")
        return pruning.block(int(rows), int(columns))
    n, m = config.structure.split(":")
    return pruning.n_of_m(int(n), int(m))


def optimizer(config: TrainConfig, plan: Plan, kept_dense: tuple[str, ...]) -> optax.GradientTransformation:
    """The optimizer of a run: the inner one, wrapped so that it prunes.

    Args:
      config: the run.
      plan: its phases.
      kept_dense: paths of the layers that are not pruned.
    """
    inner = inner_optimizer(config, plan)
    if plan.method is None:
        return inner
    structure = structure_of(config)
    options: dict[str, Any] = {} if structure is None else {"structure": structure}
    return pruning.pruned(inner, plan.method, where=prunable(kept_dense), **options)


def layers_kept_dense(
    model: nnx.Module, channels: int, num_classes: int | None, include: str = "", exclude: str = ""
) -> tuple[str, ...]:
    """Paths of the layers that are not pruned: those that read the image or write the logits, or what is asked for.

    Convolutions of the image's channels and the classifier hold a small part of the weights and cost the most accuracy
    when pruned.

    Args:
      model: with dense layers.
      channels: of the images.
      num_classes: outputs of the classifier.
      include: globs of layer paths, separated by commas; all others stay dense. "": all but those above.
      exclude: globs of further layers that stay dense.

    Raises:
      ValueError: a glob that no layer matches, or nothing left to prune.

    Source: uniform sparsity as in Evci et al. 2020, "RigL", section 3, and Peste et al. 2021, "AC/DC", appendix.

    >>> from sparsejax.models import ConvNet
    >>> layers_kept_dense(ConvNet(10, in_features=1, widths=(4, 8), rngs=nnx.Rngs(0)), 1, 10)
    ('convs/0', 'fc')
    """
    layers: list[tuple[str, bool]] = []
    for path, module in nnx.iter_modules(model):
        reads = isinstance(module, nnx.Conv) and module.in_features == channels
        writes = isinstance(module, nnx.Linear) and module.out_features == num_classes
        if isinstance(getattr(module, "kernel", None), nnx.Param):
            layers.append(("/".join(map(str, path)), reads or writes))
    names = [name for name, _ in layers]
    wanted, unwanted = (_matches(field, globs, names) for field, globs in (("include", include), ("exclude", exclude)))
    kept = tuple(name for name, at_edge in layers if (name not in wanted if include else at_edge) or name in unwanted)
    if (include or exclude) and len(kept) == len(layers):
        fail("train", "include, exclude", f"values {include!r} and {exclude!r}", "layers left to prune")
    return kept


def _matches(field: str, globs: str, names: list[str]) -> set[str]:
    matched: set[str] = set()
    for glob in filter(None, (word.strip() for word in globs.split(","))):
        matching = fnmatch.filter(names, glob)
        if not matching:
            fail("train", field, f"glob {glob!r}", f"one that matches a layer: {', '.join(names)}")
        matched.update(matching)
    return matched
