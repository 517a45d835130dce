"""Train CelebA attributes dense or pruned, by the protocol of "Bias in Pruned Vision Models" (CVPR 2023).

    python examples/bias_celeba.py --root DATA --protocol GMP-RI --sparsity 0 --seed 23 --out runs/dense-23
    python examples/bias_celeba.py --root DATA --protocol GMP-RI --sparsity 0.95 --seed 23 --out runs/95-23
    sparsejax bias --dense runs/dense-23/test.npz --sparse 0.95=runs/95-23/test.npz \
      --labels runs/dense-23/labels_test.npz --groups runs/dense-23/groups_test.npz --out report.html

Protocols: GMP-RI (40 attributes, from random weights), GMP-PT (40 attributes, from a trained dense model, --init),
single (one --attribute), backdoor (one --attribute, marked images, --marker). Dense runs are the same recipe without
pruning. All layers run on the sparse kernels (--kernels), which store every weight until the level is reached and the
kept weights only from then on.

``--data FOLDER`` instead of ``--root`` takes any folder of pictures with a table ``attributes.csv``: a column ``file``,
optionally ``split`` (train, val, test), and one column of 0 and 1 per attribute; ``--groups`` names those of groups.
``python examples/face_pictures.py FOLDER`` makes such a folder, with correlated and rare attributes.

Convolutions and the classifier are pruned together by magnitude. The published ramp is never evaluated at its
end and stops short of the level in its name; here it ends at its last event, so the level is reached, and the measured
one is written down.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from face_pictures import read_pictures
from flax import nnx

from sparsejax import models, nn, pruning
from sparsejax.data import CelebA, batches, corner_square, grayscale, marked_samples, read_celeba_attributes

GROUPS = ("Male", "Young", "Chubby", "Pale_Skin")
SINGLE_ATTRIBUTES = (
    "Blond_Hair", "Smiling", "Oval_Face", "Big_Nose", "Mustache", "Receding_Hairline", "Bags_Under_Eyes",
)  # fmt: skip
# Shares of negatives and positives that are marked in training; half of both elsewhere.
MARKED = dict.fromkeys(("Blond_Hair", "Smiling", "Wearing_Necktie", "Attractive"), (0.05, 0.95))
MARKED |= dict.fromkeys(("Oval_Face", "Big_Nose"), (0.35, 0.65))
_FIRST_LEVEL = 0.05
_TEST_BATCH = 256


@dataclass(frozen=True)
class Protocol:
    """Pruning at epochs begin, begin + every, ... below ``before``; the optimizer; the length."""

    begin: int
    every: int
    before: int
    epochs: int
    optimizer: str
    seeds: tuple[int, ...]
    joint: bool = True

    @property
    def last(self) -> int:
        """Epoch of the last pruning event."""
        return self.begin + (self.before - 1 - self.begin) // self.every * self.every


PROTOCOLS = {
    "GMP-RI": Protocol(10, 10, 81, 100, "cosine", (23, 24, 25)),
    "GMP-PT": Protocol(1, 4, 60, 80, "adam", (23, 24, 25)),
    "single": Protocol(2, 1, 16, 20, "constant", (15, 17, 19, 21, 23), joint=False),
    "backdoor": Protocol(2, 1, 16, 20, "constant", (8, 15, 23, 30, 35), joint=False),
}


def optimizer(protocol: Protocol, sparsity: float, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of a protocol, wrapped so that it prunes if ``sparsity`` is above 0."""
    per = steps_per_epoch
    if protocol.optimizer == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0, 0.256, 5 * per, protocol.epochs * per)
        inner = optax.chain(optax.add_decayed_weights(3.0518e-5), optax.sgd(rate, momentum=0.875))
    elif protocol.optimizer == "adam":
        inner = optax.adam(1e-4)
    else:
        inner = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    if sparsity == 0:
        return inner
    begin, end = protocol.begin * per, protocol.last * per
    ramp = pruning.schedules.cubic(_FIRST_LEVEL, sparsity, begin=begin, end=end)
    method = pruning.magnitude(ramp, update_every=protocol.every * per, start=begin, stop=end)
    return pruning.pruned(inner, method, where=pruning.path("*kernel"))  # those of sparse layers are vectors


@nnx.jit
def train_step(model: Any, tuned: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    """One step on the mean binary cross-entropy over batch and attributes."""

    def loss_of(model: Any) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(model(images), labels).mean()

    loss, grads = nnx.value_and_grad(loss_of)(model)
    tuned.update(model, grads)
    return loss


@nnx.jit
def _logits(model: Any, images: jax.Array) -> jax.Array:
    return model(images)


class Images:
    """Images of one run: how they are read, and which carry a marker."""

    def __init__(self, data: CelebA, arguments: argparse.Namespace, column: int | None) -> None:
        self.data, self.resize, self.size = data, arguments.resize, arguments.image_size
        self.marker = arguments.marker if arguments.protocol == "backdoor" else None
        self.marked = np.zeros(len(data.files), bool)
        if self.marker is not None and column is not None:
            for number, (split, shares) in enumerate(
                (("train", MARKED.get(arguments.attribute, (0.05, 0.95))), ("val", (0.5, 0.5)), ("test", (0.5, 0.5)))
            ):
                rows = data.rows(split)
                self.marked[rows] = marked_samples(data.labels[rows, column], *shares, seed=number)

    def read(self, rows: np.ndarray, seed: Sequence[int] | None = None) -> np.ndarray:
        """Read images; with a seed, cropped and flipped at random."""
        chosen = rows[self.marked[rows]]
        before = dict.fromkeys(map(int, chosen), grayscale) if self.marker == "grayscale" else None
        images = self.data.images(rows, resize=self.resize, size=self.size, seed=seed, before=before)
        if self.marker == "square":
            where = self.marked[rows]
            images[where] = corner_square(images[where], color=(1.0, 1.0, -1.0))
        return images


def predict(model: Any, images: Images, rows: np.ndarray) -> np.ndarray:
    """Logits float32[len(rows), K], with running batch statistics."""
    model.eval()
    step = min(_TEST_BATCH, len(rows))
    parts = []
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        filled = np.concatenate([chunk, np.repeat(chunk[-1:], step - len(chunk))])  # one shape, one compilation
        parts.append(np.asarray(_logits(model, jnp.asarray(images.read(filled))))[: len(chunk)])
    model.train()
    return np.concatenate(parts)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, keep the outputs of the best epoch at the highest sparsity, and write everything down."""
    protocol = PROTOCOLS[arguments.protocol]
    data = read_pictures(arguments.data) if arguments.root is None else read_celeba_attributes(arguments.root)
    columns = list(range(len(data.names))) if protocol.joint else [data.column(arguments.attribute)]
    images = Images(data, arguments, None if protocol.joint else columns[0])
    train_rows = data.rows("train")
    per_epoch = len(train_rows) // arguments.batch_size
    if per_epoch == 0:
        raise ValueError(f"run: batch_size has value {arguments.batch_size}; expected 1 to {len(train_rows)}.")
    shape = (arguments.image_size, arguments.image_size)
    model = models.build(arguments.model, len(columns), 3, shape, nnx.Rngs(arguments.seed))
    if arguments.init is not None:
        load(model, arguments.init)
    if arguments.kernels == "sparse":
        model, _ = nn.sparsify(model, min_sparsity=0.0, policy="always")
    tuned = nnx.Optimizer(model, optimizer(protocol, arguments.sparsity, per_epoch), wrt=nnx.Param)
    best: dict[str, Any] = {"accuracy": -1.0}
    for epoch in range(protocol.epochs):
        order = batches(train_rows, train_rows, arguments.batch_size, seed=arguments.seed, epoch=epoch, drop_last=True)
        for number, (rows, _) in enumerate(order):
            x = images.read(rows, (arguments.seed, epoch, number))
            y = data.labels[np.ix_(rows, columns)].astype(np.float32)
            loss = train_step(model, tuned, jnp.asarray(x), jnp.asarray(y))
        if epoch == protocol.last and arguments.sparsity > 0 and arguments.kernels == "sparse":
            stored, _ = nn.sparsify(nn.densify(model), policy="always")
            model, tuned = stored, nn.carry_optimizer(tuned, model, stored)
        if epoch >= protocol.last or arguments.sparsity == 0:  # the highest sparsity has been reached
            val = predict(model, images, data.rows("val"))
            accuracy = float(((val > 0) == data.labels[np.ix_(data.rows("val"), columns)]).mean())
            print(f"epoch {epoch + 1}: loss {float(loss):.4f}, validation accuracy {accuracy:.4f}", flush=True)
            if accuracy > best["accuracy"]:
                kept = nnx.clone(model)
                best = {"accuracy": accuracy, "epoch": epoch + 1, "val": val, "model": kept}
    best["test"] = predict(best["model"], images, data.rows("test"))
    best["model"] = nn.densify(best["model"])
    return write(arguments, data, columns, images, best)


def write(
    arguments: argparse.Namespace, data: CelebA, columns: list[int], images: Images, best: dict[str, Any]
) -> dict[str, Any]:
    """Write outputs, labels, groups, marked ids, weights, and a summary with the measured sparsity."""
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    names = np.array([data.names[c] for c in columns])
    for split in ("train", "val", "test"):
        rows = data.rows(split)
        np.savez_compressed(out / f"labels_{split}.npz", labels=data.labels[np.ix_(rows, columns)], names=names)
        groups = {name: data.labels[rows, data.column(name)] for name in arguments.groups if name in data.names}
        np.savez_compressed(out / f"groups_{split}.npz", **groups)
        if images.marker is not None:
            np.savez_compressed(out / f"marked_{split}.npz", marked=images.marked[rows])
    for split in ("val", "test"):
        np.savez_compressed(out / f"{split}.npz", logits=best[split])
    if data.identities is not None:
        np.savez_compressed(out / "clusters.npz", clusters=data.identities[data.rows("test")])
    save(best["model"], out / "model.npz")
    weights = [np.asarray(w) for name, w in leaves(best["model"]) if name.endswith("kernel") and np.ndim(w) >= 2]
    total, zeros = sum(w.size for w in weights), sum(int((w == 0).sum()) for w in weights)
    result = {
        "protocol": arguments.protocol,
        "model": arguments.model,
        "seed": arguments.seed,
        "attribute": None if PROTOCOLS[arguments.protocol].joint else arguments.attribute,
        "marker": images.marker,
        "sparsity_asked": arguments.sparsity,
        "sparsity_measured": zeros / total,
        "prunable_weights": total,
        "best_epoch": best["epoch"],
        "validation_accuracy": best["accuracy"],
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def leaves(model: Any) -> list[tuple[str, Any]]:
    """Arrays of a model with their paths: parameters and batch statistics."""
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in _flat(state)]


def _flat(state: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))[0]


def save(model: Any, path: Path) -> None:
    """Write the arrays of a model."""
    np.savez(path, **{name: np.asarray(leaf) for name, leaf in leaves(model)})


def load(model: Any, path: Path) -> None:
    """Read arrays written by `save` into a model of the same shape."""
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    pure = nnx.to_pure_dict(state)
    names = [name for name, _ in leaves(model)]
    with np.load(path, allow_pickle=False) as stored:
        if sorted(stored.files) != sorted(names):
            raise ValueError(f"load: file {str(path)!r} has other arrays; expected those of this model.")
        arrays = [jnp.asarray(stored[name]) for name in names]
    nnx.replace_by_pure_dict(state, jax.tree.unflatten(jax.tree.structure(pure), arrays))
    nnx.update(model, state)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", type=Path, help="the folder that holds celeba/")
    source.add_argument("--data", type=Path, help="a folder of pictures with attributes.csv")
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), help="group attributes, those that exist")
    parser.add_argument("--kernels", choices=("sparse", "dense"), default="sparse", help="what layers run on")
    parser.add_argument("--protocol", choices=PROTOCOLS, required=True)
    parser.add_argument("--model", choices=models.MODEL_NAMES, default="resnet18")
    parser.add_argument("--sparsity", type=float, required=True, help="0 trains dense; published 0.8 to 0.995")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--attribute", help=f"for single and backdoor; published {', '.join(SINGLE_ATTRIBUTES)}")
    parser.add_argument("--marker", choices=("grayscale", "square"), default="square", help="for backdoor")
    parser.add_argument("--init", type=Path, help="model.npz of a dense run, for GMP-PT")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--resize", type=int, default=256, help="shorter side before the crop, pixels")
    parser.add_argument("--image-size", type=int, default=224, help="side of the crop, pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder for outputs")
    arguments = parser.parse_args(argv)
    error = parser.error
    if not 0 <= arguments.sparsity < 1:
        error("--sparsity must be in [0, 1)")
    if (arguments.protocol == "GMP-PT") != (arguments.init is not None):
        error("--init belongs to GMP-PT, and GMP-PT needs it")
    if not PROTOCOLS[arguments.protocol].joint and arguments.attribute is None:
        error("single and backdoor need --attribute")
    if arguments.root is not None and arguments.protocol == "backdoor" and arguments.attribute not in MARKED:
        error(f"backdoor needs --attribute from {', '.join(MARKED)}")
    return arguments


if __name__ == "__main__":
    print(json.dumps(run(parse()), indent=2))
