"""Sparse fine-tuning of a small vision transformer on the digits of scikit-learn: dense, pruned, fine-tuned.

The network is trained dense; then 90 % of each kernel but those of the embedding and the classifier are pruned by
magnitude, and the kept weights are trained further. Printed: the accuracies, and a training step dense against sparse.

    python examples/finetune_transformer.py --width 128 --depth 4
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from sparsejax import data, nn, pruning, train
from sparsejax.models import ViT, body_kernels
from sparsejax.train.results._ratios import ratio_text


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
      dense: accuracy before pruning.
      pruned: accuracy behind it, before fine-tuning.
      sparse: result of fine-tuning.
      layers: number of layers that are stored sparse.
    """

    dense: float
    pruned: float
    sparse: train.TrainResult
    layers: int

    def __str__(self) -> str:
        """Return the accuracies and the ratio of step times."""
        assert self.sparse.accuracy is not None
        text = f"dense {self.dense:.1%}, pruned {self.pruned:.1%}, fine-tuned {self.sparse.accuracy:.1%}"
        cost = self.sparse.comparison
        step = "no layer is stored sparse" if cost is None else f"a step is {ratio_text(cost.ratios)}"
        return f"{text} at sparsity {self.sparse.sparsity:.2f}\n{self.layers} layers stored sparse; {step}"


def run(width: int, depth: int, epochs: int, *, sparsity: float = 0.9, measure: bool = True) -> Outcome:
    """Train, prune and fine-tune; ``measure`` as in `sparsejax.train.finetune`."""
    task = data.load_task("digits")
    model = ViT(10, width=width, depth=depth, heads=4, image_size=(8, 8), patch=2, in_features=1, rngs=nnx.Rngs(0))
    how: Any = {"optimizer": "adamw", "learning_rate": 3e-3, "batch_size": 64, "epochs": epochs}
    dense = train.finetune(model, task, method="dense", **how)
    masks = pruned_masks(dense.model, sparsity)
    zeroed = nnx.clone(dense.model)
    for path, layer in nn.modules_of(zeroed, nnx.Linear).items():
        if path in masks:
            layer.kernel[...] = layer.kernel[...] * masks[path]
    pruned = train.evaluate_accuracy(zeroed, task.test.images(np.arange(len(task.test))), task.test.labels)
    sparse = train.finetune(zeroed, task, masks=masks, measure=measure, **how)
    assert dense.accuracy is not None
    return Outcome(dense.accuracy, pruned, sparse, len(nn.pattern_masks(sparse.model)))


def pruned_masks(model: nnx.Module, sparsity: float) -> dict[str, np.ndarray]:
    """Masks by layer path: the largest weights of each kernel of the body."""
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    where = body_kernels(model)
    tx = pruning.pruned(optax.identity(), pruning.one_shot(sparsity, scope="layer"), where=where)
    _, state = pruning.init(tx, params)
    flat = jax.tree_util.tree_flatten_with_path(pruning.get_mask(state))[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): mask for path, mask in flat}
    return {path.removesuffix("/kernel"): np.asarray(mask) for path, mask in named.items()}


def main() -> None:
    """Print the outcome."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("width", 128), ("depth", 4), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    print(run(options.width, options.depth, options.epochs))


if __name__ == "__main__":
    main()
