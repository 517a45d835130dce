"""``python -m sparsejax_bench.transfer``: fine-tuning a sparse ResNet-18 on MNIST, sparse kernels against dense ones.

Full fine-tuning: a training step of the same network with both kinds of kernels, timed alternately; then a few steps
of `finetune`, after which the mask must be the one before to the bit. Linear fine-tuning: an epoch with features
recomputed from the images, by part. Weights are random and pruned by magnitude: they matter for accuracy, not for time.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from flax import nnx

from sparsejax import configure, data, models, nn
from sparsejax._cpu_info import cpu_info
from sparsejax.analysis import transfer
from sparsejax.nn import dense_kernels
from sparsejax.train import compare_steps, fix_masks


def main() -> None:
    """Measure and print; fail if the mask has changed or the sparse step is not faster."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of MNIST in IDX form")
    parser.add_argument("--sparsity", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=32, help="images per step (default 32)")
    parser.add_argument(
        "--steps", type=int, default=4, help="steps of fine-tuning that the mask must survive (default 4)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each kind (default 7)")
    parser.add_argument("--regime", choices=("full", "linear", "both"), default="both")
    parser.add_argument("--json", action="store_true", help="print numbers as JSON and nothing else")
    options = parser.parse_args()
    configure()
    whole = data.idx_dataset(options.data).standardized()
    task = _part(whole, options.steps * options.batch)
    model = pruned_resnet(options.sparsity, task.num_classes)
    figures: dict[str, Any] = {"threads": cpu_info().threads, "isa": cpu_info().isa, "batch": options.batch}
    if options.regime in ("full", "both"):
        figures["full"] = full(model, task, options)
    if options.regime in ("linear", "both"):
        sparse, _ = nn.sparsify(model, min_sparsity=0.5, policy="always", skip=("conv1", "fc"))
        cost = transfer.time_linear_epoch({"dense": model, "sparse": sparse}, task, batch_size=options.batch)
        figures["linear"] = cost.to_dict()
        if not options.json:
            print(cost)
    if options.json:
        print(json.dumps(figures))
    if figures.get("full", {}).get("speedup", 2.0) <= 1.0:
        raise SystemExit("the sparse step is not faster")


def full(model: Any, task: data.ImageTask, options: argparse.Namespace) -> dict[str, Any]:
    """Time a step with both kinds of kernels, then fine-tune and compare masks."""
    before = {path: kernel != 0 for path, kernel in dense_kernels(model).items() if path != "fc"}
    config = transfer.SGDConfig.full("mnist", batch_size=options.batch, epochs=1)
    fresh = models.with_new_head(model, task.num_classes, rngs=nnx.Rngs(0))
    prepared = fix_masks(fresh, keep_dense=("fc",))
    rows = np.arange(options.batch)
    batch = task.train.images(rows), task.train.labels[rows]
    inner = config.optimizer(len(task.train))
    cost = compare_steps(nn.densify(prepared.model), prepared.model, inner, *batch, repeats=options.repeats)
    result = transfer.finetune(model, task, config, evaluate_every=None)
    after = {path: kernel != 0 for path, kernel in dense_kernels(result.model).items()}
    outside = sum(int((after[path] & ~mask).sum()) for path, mask in before.items())
    stored = nn.pattern_masks(result.model)
    same = all(np.array_equal(stored[path], mask) for path, mask in before.items() if not mask.all())
    if outside or not same:
        raise SystemExit(f"the mask has changed: {outside} weights outside it")
    if not options.json:
        print(f"ResNet-18, {options.sparsity:.0%} sparse, batch {options.batch}, {cpu_info().threads} threads")
        print(f"step: dense {cost.dense.ms:.0f} ms, sparse {cost.sparse.ms:.0f} ms: {cost.speedup:.2f} times faster")
        print(f"mask of {len(stored)} layers unchanged to the bit after {options.steps} steps of fine-tuning")
    return cost.to_dict() | {"mask_unchanged": True, "steps": options.steps}


def pruned_resnet(sparsity: float, num_classes: int) -> Any:
    """A ResNet-18 for small grey images; each convolution but the first keeps its largest weights."""
    model = models.resnet18(num_classes, in_features=1, stem="small", rngs=nnx.Rngs(0))
    for path, layer in nnx.iter_modules(model):
        if isinstance(layer, nnx.Conv) and path != ("conv1",):
            kernel = np.array(layer.kernel[...])
            count = round(sparsity * kernel.size)
            kernel.ravel()[np.argsort(np.abs(kernel).ravel(), kind="stable")[:count]] = 0
            layer.kernel[...] = kernel
    return model


def _part(whole: data.Dataset, count: int) -> data.ImageTask:
    """The first images: the time of a step does not depend on how many there are."""
    train = data.ArrayImageSplit(whole.train_images[:count], whole.train_labels[:count])
    test = data.ArrayImageSplit(whole.test_images[:64], whole.test_labels[:64])
    return data.ImageTask("mnist", train, test, whole.num_classes, allow_missing_classes=True)


if __name__ == "__main__":
    main()
