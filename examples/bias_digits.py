"""A small study of bias under pruning: twelve attributes of real digits, one network, gradual magnitude pruning.

Data: the digits of scikit-learn (8 x 8), drawn with noise on a 10 x 10 canvas so that several views of one source image
exist; no source image is shared between splits. Model: an MLP 100-256-256-K. The notebook ``notebooks/bias.ipynb``
uses this file; by itself it trains the joint models, writes the audit, and prints the findings with intervals over
seeds and verdicts by the rule of ``verdicts.py``:

    python examples/bias_digits.py --out bias.html
    python examples/bias_digits.py --data MNIST --out bias.html

``--data`` is a folder with the IDX files of MNIST, whose images of 28 x 28 pixels take the place of the digits.

``--backend dask`` and ``--backend ray`` train on a cluster, whose workers have this folder on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import verdicts
from flax import nnx

from sparsejax import pruning
from sparsejax.analysis._parallel import add_backend_options, run_jobs
from sparsejax.data import corner_square, idx_dataset, marked_samples
from sparsejax.models import MLP

ATTRIBUTES = (
    "loop", "even", "ge5", "prime", "straight", "eight", "zero", "top_heavy", "left_heavy", "centre_dense", "thick",
    "slanted",
)  # fmt: skip
GROUPS = ("thick", "slanted")
SPARSITIES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
SIZES = {"train": 6000, "val": 2000, "test": 4000}
SHARES = {"train": 0.5, "val": 0.15, "test": 0.35}
BATCH = 200


@dataclass(frozen=True)
class Split:
    """Images float32[n, H, W, 1] in [0, 1.5] (10 x 10 for the digits), labels int8[n, 12], the source image of each."""

    images: np.ndarray
    labels: np.ndarray
    sources: np.ndarray

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """The group attributes."""
        return {name: self.labels[:, ATTRIBUTES.index(name)] for name in GROUPS}


def attributes_of(images: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Return the twelve attributes int8[n, 12] of clean images float[n, S, S]."""
    side = images.shape[1]
    quarter, half = side // 4, side // 2
    ink = images.sum(axis=(1, 2))
    centre = images[:, quarter:-quarter, quarter:-quarter].sum(axis=(1, 2)) / ink
    rows, columns = np.mgrid[0:side, 0:side].astype(float)
    dy = rows - ((images * rows).sum(axis=(1, 2)) / ink)[:, None, None]
    dx = columns - ((images * columns).sum(axis=(1, 2)) / ink)[:, None, None]
    slant = (images * dx * dy).sum(axis=(1, 2)) / (images * dy**2).sum(axis=(1, 2))
    attributes = (
        np.isin(digits, (0, 6, 8, 9)),
        digits % 2 == 0,
        digits >= 5,
        np.isin(digits, (2, 3, 5, 7)),
        np.isin(digits, (1, 4, 7)),
        digits == 8,
        digits == 0,
        images[:, :half].sum(axis=(1, 2)) > ink / 2,
        images[:, :, :half].sum(axis=(1, 2)) > ink / 2,
        centre > np.median(centre),
        ink > np.median(ink),
        slant < np.median(slant),
    )
    return np.stack(attributes, axis=1).astype(np.int8)


def read_digits(folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return square images in [0, 1] and digits: those of scikit-learn, or of a folder of IDX files."""
    if folder is None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images / 16.0, bunch.target
    data = idx_dataset(folder)
    images = np.concatenate([data.train_images, data.test_images])[..., 0].astype(float)
    return images, np.concatenate([data.train_labels, data.test_labels])


def make_data(seed: int = 0, folder: Path | None = None) -> dict[str, Split]:
    """Split the source images of `read_digits`, then draw noisy views of them."""
    clean, digits = read_digits(folder)
    side = clean.shape[1]
    labels = attributes_of(clean, digits)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clean))
    splits, start = {}, 0
    for name, share in SHARES.items():
        stop = len(order) if name == "test" else start + round(share * len(order))
        sources = rng.choice(order[start:stop], SIZES[name])
        canvas = np.zeros((len(sources), side + 2, side + 2))
        canvas[:, 1:-1, 1:-1] = clean[sources] * rng.uniform(0.7, 1.0, len(sources))[:, None, None]
        noisy = np.clip(canvas + rng.normal(0, 0.2, canvas.shape), 0, 1.5)
        splits[name] = Split(noisy[..., None].astype(np.float32), labels[sources], sources)
        start = stop
    return splits


def _optimizer(sparsity: float, epochs: int, per_epoch: int) -> optax.GradientTransformation:
    steps = epochs * per_epoch
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, max(1, steps // 20), steps)
    inner = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(rate, momentum=0.9))
    if sparsity == 0:
        return inner
    begin, end = round(0.1 * epochs) * per_epoch, round(0.8 * epochs) * per_epoch
    ramp = pruning.schedules.cubic(0.05, sparsity, begin=begin, end=end)
    return pruning.pruned(inner, pruning.magnitude(ramp, update_every=per_epoch, start=begin, stop=end))


@functools.lru_cache(maxsize=64)
def _trainer(pixels: int, outputs: int, sparsity: float, epochs: int, samples: int) -> Any:
    """Compile one training run: all seeds of a configuration share it."""
    abstract = nnx.eval_shape(lambda: MLP(pixels, outputs, hidden=(256, 256), rngs=nnx.Rngs(0)))
    graph = nnx.split(abstract, nnx.Param)[0]
    tx = _optimizer(sparsity, epochs, samples // BATCH)

    @jax.jit
    def fit(params: Any, images: jax.Array, labels: jax.Array, order: jax.Array) -> tuple[Any, jax.Array]:
        state = tx.init(params)

        def step(carry: Any, batch: jax.Array) -> tuple[Any, jax.Array]:
            params, state = carry

            def loss_of(params: Any) -> jax.Array:
                logits = nnx.merge(graph, params)(images[batch])
                return optax.sigmoid_binary_cross_entropy(logits, labels[batch]).mean()

            loss, grads = jax.value_and_grad(loss_of)(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), losses = jax.lax.scan(step, (params, state), order)
        return params, losses

    @jax.jit
    def predict(params: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(images)

    return fit, predict


def train(
    images: np.ndarray, labels: np.ndarray, evaluate: Sequence[np.ndarray], *, sparsity: float, seed: int, epochs: int
) -> tuple[list[np.ndarray], float]:
    """Train one model, and return its logits on each array of images, and its measured sparsity."""
    pixels = images[0].size
    model = MLP(pixels, labels.shape[1], hidden=(256, 256), rngs=nnx.Rngs(seed))
    params = nnx.state(model, nnx.Param)
    fit, predict = _trainer(pixels, labels.shape[1], sparsity, epochs, len(images))
    rng = np.random.default_rng((seed, 1))
    order = np.concatenate([rng.permutation(len(images))[: len(images) // BATCH * BATCH] for _ in range(epochs)])
    batches = jnp.asarray(order.reshape(-1, BATCH))
    params, _ = fit(params, jnp.asarray(images), jnp.asarray(labels, jnp.float32), batches)
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)
    return [np.asarray(predict(params, jnp.asarray(x))) for x in evaluate], zeros if sparsity else 0.0


def train_joint(data: dict[str, Split], sparsity: float, seed: int, epochs: int) -> dict[str, Any]:
    """Train all attributes together; return logits on validation and test, and the measured sparsity."""
    evaluate = (data["val"].images, data["test"].images)
    (val, test), zeros = train(
        data["train"].images, data["train"].labels, evaluate, sparsity=sparsity, seed=seed, epochs=epochs
    )
    return {"val": val, "test": test, "sparsity": zeros}


def train_single(data: dict[str, Split], attribute: str, sparsity: float, seed: int, epochs: int) -> dict[str, Any]:
    """Train one attribute alone; return logits on test, [n, 1], and the measured sparsity."""
    labels = data["train"].labels[:, [ATTRIBUTES.index(attribute)]]
    (test,), zeros = train(
        data["train"].images, labels, (data["test"].images,), sparsity=sparsity, seed=seed, epochs=epochs
    )
    return {"test": test, "sparsity": zeros}


def train_marked(
    data: dict[str, Split], attribute: str, shares: tuple[float, float], sparsity: float, seed: int, epochs: int
) -> dict[str, Any]:
    """Train one attribute on images of which chosen ones carry a white square in a corner.

    Args:
      data: see `make_data`.
      attribute: the target.
      shares: of the negatives and of the positives that are marked in training; half of both in the test split.
      sparsity: asked for.
      seed: of the model.
      epochs: passes over the data.

    Returns:
      Logits on test, [n, 1]; which test samples are marked, bool[n]; the measured sparsity.
    """
    column = ATTRIBUTES.index(attribute)
    marked, images = {}, {}
    for name, (negatives, positives), choice in (("train", shares, 0), ("test", (0.5, 0.5), 1)):
        split = data[name]
        marked[name] = marked_samples(split.labels[:, column], negatives, positives, seed=choice)
        square = corner_square(split.images, side=2, color=1.0)
        images[name] = np.where(marked[name][:, None, None, None], square, split.images)
    labels = data["train"].labels[:, [column]]
    (test,), zeros = train(images["train"], labels, (images["test"],), sparsity=sparsity, seed=seed, epochs=epochs)
    return {"test": test, "marked": marked["test"], "sparsity": zeros}


def run_many(jobs: Sequence[Any], workers: int, keep: str | None = None, **where: Any) -> list[Any]:
    """Run jobs (function, arguments) in processes of their own, or on a cluster, and return the results in order.

    With a folder ``keep``, results are stored there, by function and arguments, and are not computed again. ``where``
    is ``backend`` and ``address``.
    """
    from joblib import Memory, parallel_config

    memory = Memory(keep, verbose=0)
    calls = [(memory.cache(function), *arguments) for function, *arguments in jobs]
    # No memory maps: they would be other arguments to the store than the arrays themselves.
    with parallel_config(max_nbytes=None):
        return run_jobs("bias_digits", operator.call, calls, n_jobs=workers, **where)


def audit(data: dict[str, Split], runs: dict[float, list[dict[str, Any]]], **options: Any) -> Any:
    """Compare the dense with all sparse models; ``runs`` maps the sparsity asked for to the runs of all seeds."""
    from sparsejax.analysis import bias

    logits = {
        split: {s: np.stack([run[split] for run in each]) for s, each in runs.items()} for split in ("val", "test")
    }
    test, train_split = data["test"], data["train"]
    return bias.compare(
        logits["test"][0.0],
        {s: z for s, z in logits["test"].items() if s},
        test.labels,
        test.groups,
        train_labels=train_split.labels,
        train_groups=train_split.groups,
        val={
            "dense": logits["val"][0.0],
            "sparse": {s: z for s, z in logits["val"].items() if s},
            "labels": data["val"].labels,
        },
        attribute_names=ATTRIBUTES,
        clusters=test.sources,
        **options,
    )


def common_amplification(report: Any, data: dict[str, Split]) -> dict[tuple[str, float], np.ndarray]:
    """Return bias amplification, one number per seed, for ("default" | "calibrated" | "override", sparsity).

    It is the mean over the cells that are defined in every run, at both thresholds, and where the dense model of the
    same seed decides the samples that it marks as exposed.
    """
    from sparsejax.analysis import bias

    test, train_split = data["test"], data["train"]

    def overridden(run: Any) -> np.ndarray:
        dense = report.dense_run(run)
        p = 1 / (1 + np.exp(-dense.model.logits[dense.seed]))
        decided = bias.override_predictions(run.y_pred, np.abs(p - 0.5) < 0.4, source="dense", dense_pred=dense.y_pred)
        options = {"y_train": train_split.labels, "sensitive_train": train_split.groups}
        value = bias.bias_amplification(test.labels, decided.y_pred, test.groups, **options).value
        return np.where(report.frame.is_self, np.nan, value.reshape(report.frame.is_self.shape)).T

    values = {}
    for model in (report.inputs.dense, *report.inputs.sparse):
        for thresholds in ("default", "calibrated"):
            runs = report.runs_of(model, thresholds)
            values[thresholds, model.sparsity] = [run.measures["bias_amplification"].value for run in runs]
        if model is not report.inputs.dense:
            values["override", model.sparsity] = [overridden(run) for run in report.runs_of(model)]
    common = np.isfinite(np.concatenate([np.stack(each) for each in values.values()])).all(axis=0)
    print(f"{common.sum()} cells are defined in all of {sum(map(len, values.values()))} runs and treatments")
    return {
        key: np.array([each[common].mean() if common.any() else np.nan for each in arrays])
        for key, arrays in values.items()
    }


def findings(report: Any, data: dict[str, Split]) -> list[verdicts.Evidence]:
    """Return the findings about the joint models at every sparsity: differences between models of the same seed."""
    frame, flipped = report.table.to_pandas(), report.flips.to_pandas()
    levels = [model.sparsity for model in report.inputs.sparse]
    common = common_amplification(report, data)
    dense = common["default", 0.0]

    def per_seed(metric: str, level: float) -> np.ndarray:
        where = (frame.metric == metric) & (frame.sparsity == level) & (frame.thresholds == "default")
        return frame[where & (frame.group == "")].groupby("seed")["value"].mean().to_numpy()

    def change(metric: str) -> dict[float, np.ndarray]:
        return {level: per_seed(metric, level) - per_seed(metric, 0.0) for level in levels}

    def amplification(treatment: str) -> dict[float, np.ndarray]:
        return {level: common["default", level] - common[treatment, level] for level in levels}

    sparse_flips = flipped[flipped.model != "churn"]
    coverage = {level: sparse_flips[sparse_flips.sparsity == level].coverage for level in levels}
    grown = {level: common["default", level] - dense for level in levels}
    claims = [
        ("accuracy is no more than 1.5 points below dense", {s: 100 * v for s, v in change("accuracy").items()}, -1.5),
        (
            "bias amplification grows by no more than its standard deviation over dense seeds"
            " (difference, sign reversed)",
            {level: -value for level, value in grown.items()},
            -dense.std(ddof=1),
        ),
        ("outputs are less certain than dense", change("uncertainty"), 0.0),
        ("outputs depend more on each other than dense (probabilities)", change("interdependence_prob"), 0.0),
        (
            "outputs depend more on each other than dense (decisions, as in the paper's code)",
            change("interdependence_hard"),
            0.0,
        ),
        ("bias amplification is above dense", grown, 0.0),
        ("threshold calibration lowers bias amplification", amplification("calibrated"), 0.0),
        ("the dense model marks 95 % or more of the decisions that flip", coverage, 0.95),
        ("dense decisions on exposed cells lower bias amplification", amplification("override"), 0.0),
    ]
    return [
        verdicts.evidence(finding, f"{100 * level:g} %", values[level], margin)
        for finding, values, margin in claims
        for level in levels
    ]


def main() -> None:
    """Train, audit, write the report, print the findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bias.html", help="the report")
    parser.add_argument(
        "--data", type=Path, help="a folder with the IDX files of MNIST; without it, scikit-learn's digits"
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    add_backend_options(parser)
    arguments = parser.parse_args()
    data = make_data(folder=arguments.data)
    levels = (0.0, *SPARSITIES)
    jobs = [(train_joint, data, s, seed, arguments.epochs) for s in levels for seed in range(arguments.seeds)]
    results = iter(run_many(jobs, arguments.workers, backend=arguments.backend, address=arguments.address))
    runs = {s: [next(results) for _ in range(arguments.seeds)] for s in levels}
    report = audit(data, runs, images=data["test"].images, n_boot=200)
    report.to_html(arguments.out)
    print(report)
    print(f"report in {arguments.out}\n")
    rows = verdicts.table(findings(report, data))
    print(f"\n{verdicts.verdict_table(rows)}\n\n{verdicts.sentences(rows)}")


if __name__ == "__main__":
    import bias_digits  # worker processes need the functions of a module that they can import

    bias_digits.main()
