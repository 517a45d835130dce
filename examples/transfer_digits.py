"""A small study of transfer: networks pruned on the digits 0-4, adapted to other digit tasks, frozen and trained.

Real images, 14 x 14: MNIST (10,000 images), Semeion, and the digits of scikit-learn. Upstream: MNIST 0-4. Downstream:
MNIST 5-9, the same with 20 images a class, Semeion 5-9 and 0-9, scikit-learn's digits 5-9 and 0-9. A small network with
batch norm is trained dense, by gradual magnitude pruning, by AC/DC, and by lottery tickets (the mask on the dense
weights, with stale or recalibrated batch statistics). A seed is a whole run: upstream, pruning, downstream.

    python examples/transfer_digits.py --data FOLDER --out transfer-digits

FOLDER holds ``mnist10k`` (the test half of MNIST, two IDX files) and ``semeion/semeion.csv.gz`` (a header, then 256
pixels and a label in each row). Finished jobs are stored in ``--out`` and not repeated.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparsejax import data, pruning
from sparsejax.analysis import transfer

SPARSITIES = (0.8, 0.9, 0.95)
TASKS = ("mnist59", "mnist59_few20", "semeion59", "semeion10", "digits59", "digits10")
METHODS = ("Dense", "GMP", "AC/DC", "LTH-T", "LTH-T recalibrated")
CATEGORY = {"LTH-T recalibrated": "lottery_ticket"}
BATCH, FULL_STEPS, FULL_RATE = 64, 500, 0.02
PRUNABLE = pruning.is_kernel() & ~pruning.path("fc/*")
LBFGS = "linear, L-BFGS, standardised"

# A process keeps its compiled programs. joblib takes the growth for a leak and starts a fresh process, which is fine.
warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")


class Network(nnx.Module):
    """Linear layers without bias, each with batch norm and ReLU, widths 96-96-96-64, and a classifier."""

    def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
        widths = (196, 96, 96, 96, 64)
        # Flax's default initial values. With twice their variance (He), AC/DC at 95 % by global magnitude nearly cuts
        # the network: a hidden layer keeps a tenth of a percent of its weights.
        pairs = itertools.pairwise(widths)
        self.layers = nnx.List([nnx.Linear(a, b, use_bias=False, rngs=rngs) for a, b in pairs])
        self.norms = nnx.List([nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs) for width in widths[1:]])
        self.fc = nnx.Linear(widths[-1], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map float[B, 196] to logits float[B, num_classes]."""
        x = images
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = nnx.relu(norm(layer(x)))
        return self.fc(x)


def _split(pixels: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> data.ArrayImageSplit:
    chosen = np.isin(labels, classes)
    numbers = np.searchsorted(classes, labels[chosen]).astype(np.int32)
    return data.ArrayImageSplit(pixels[chosen], numbers)


def _standardized(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    return ((flat - flat.mean()) / flat.std()).astype(np.float32)


def _sources(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels float32[N, 196] and labels of MNIST, Semeion and scikit-learn's digits."""
    from sklearn.datasets import load_digits

    mnist = data.read_idx(folder / "mnist10k" / "t10k-images-idx3-ubyte.gz").astype(np.float32)
    labels = data.read_idx(folder / "mnist10k" / "t10k-labels-idx1-ubyte.gz").astype(np.int64)
    table = np.loadtxt(folder / "semeion" / "semeion.csv.gz", delimiter=",", skiprows=1)
    bundle: Any = load_digits()
    doubled = bundle.images.repeat(2, axis=1).repeat(2, axis=2)
    return {
        "mnist": (_standardized(mnist.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))), labels),
        "semeion": (_standardized(table[:, :256].reshape(-1, 16, 16)[:, 1:-1, 1:-1]), table[:, 256].astype(np.int64)),
        "digits": (_standardized(doubled[:, 1:-1, 1:-1]), bundle.target),
    }


def make_data(folder: str | os.PathLike[str]) -> tuple[data.ImageTask, dict[str, data.ImageTask]]:
    """Return the upstream task and the six downstream ones."""
    sources = _sources(Path(folder))
    low, high, every = range(5), range(5, 10), range(10)

    def task(name: str, train: Any, test: Any, classes: Sequence[int]) -> data.ImageTask:
        return data.ImageTask(name, _split(*train, classes), _split(*test, classes), len(classes))

    pixels, labels = sources["mnist"]
    mnist = (pixels[:8000], labels[:8000]), (pixels[8000:], labels[8000:])
    upstream = task("mnist04", *mnist, low)
    downstream = {"mnist59": task("mnist59", *mnist, high)}
    few = downstream["mnist59"].train
    rows = np.concatenate([np.flatnonzero(few.labels == number)[:20] for number in range(5)])
    chosen = data.ArrayImageSplit(few.images(rows), few.labels[rows])
    downstream["mnist59_few20"] = data.ImageTask("mnist59_few20", chosen, downstream["mnist59"].test, 5)
    for source in ("semeion", "digits"):
        pixels, labels = sources[source]
        order = np.random.default_rng(0).permutation(len(labels))
        halves = [(pixels[part], labels[part]) for part in np.array_split(order, 2)]
        for name, classes in ((f"{source}59", high), (f"{source}10", every)):
            downstream[name] = task(name, *halves, classes)
    return upstream, downstream


def _sgd(rate: Any) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))


def _thirds(rate: float, steps: int, start: int = 0) -> optax.Schedule:
    """``rate`` until ``start``, and for a third of ``steps`` from there, then a tenth, then a hundredth of it."""
    return optax.piecewise_constant_schedule(rate, {start + steps // 3: 0.1, start + 2 * steps // 3: 0.1})


def _gmp(sparsity: float) -> optax.GradientTransformation:
    """Ten prunings, cubic, 40 steps apart, from a dense network; then 400 steps."""
    ramp = pruning.schedules.cubic(0.0, sparsity, begin=0, end=400)
    method = pruning.magnitude(ramp, scope="global", update_every=40, stop=400)
    return pruning.pruned(_sgd(_thirds(0.01, 400, start=400)), method, where=PRUNABLE)


def _acdc(sparsity: float) -> optax.GradientTransformation:
    """150 dense steps, four times 60 compressed and 60 dense ones, 300 compressed ones with a falling rate."""
    phases = pruning.acdc_phases(total=930, warmup=150, sparse=60, dense=60, last_dense=60, final_sparse=300)
    inner = _sgd(_thirds(0.05, 300, start=630))
    return pruning.pruned(inner, pruning.acdc(sparsity, phases, scope="global"), where=PRUNABLE)


@functools.lru_cache
def _trainer(kind: str, sparsity: float) -> Any:
    """Compile a training loop: (params, other state, optimizer state or None, data, order) to (params, other state)."""
    makers = {"dense": lambda s: _sgd(_thirds(0.05, 800)), "GMP": _gmp, "AC/DC": _acdc}
    ticket = lambda s: pruning.pruned(_sgd(_thirds(0.01, 200)), pruning.fixed({}), where=PRUNABLE)  # noqa: E731
    tx = (makers | {"ticket": ticket})[kind](sparsity)
    graph, _ = nnx.split(nnx.eval_shape(lambda: Network(5, rngs=nnx.Rngs(0))), ...)

    @jax.jit
    def fit(params: Any, rest: Any, state: Any, images: jax.Array, labels: jax.Array, order: jax.Array) -> Any:
        state = tx.init(params) if state is None else state

        def step(carry: Any, rows: jax.Array) -> Any:
            params, rest, state = carry

            def loss_of(params: Any) -> Any:
                model = nnx.merge(graph, params, rest, copy=True)  # batch norm changes its variables
                loss = optax.softmax_cross_entropy_with_integer_labels(model(images[rows]), labels[rows]).mean()
                return loss, nnx.state(model, nnx.Not(nnx.Param))

            (_, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), rest, state), None

        (params, rest, _), _ = jax.lax.scan(step, (params, rest, state), order)
        return params, rest

    return fit


def _order(count: int, steps: int, seed: tuple[int, ...]) -> jax.Array:
    """Shuffled batches, int32[steps, BATCH]; short last batches are left out."""
    rng, per_epoch = np.random.default_rng(seed), count // BATCH
    epochs = [rng.permutation(count)[: per_epoch * BATCH].reshape(-1, BATCH) for _ in range(-(-steps // per_epoch))]
    return jnp.asarray(np.concatenate(epochs)[:steps], jnp.int32)


def train_upstream(upstream: data.ImageTask, seed: int, sparsities: Sequence[float] = SPARSITIES) -> list[Any]:
    """Train the dense network and prune it in every way; return `transfer.Backbone` and upstream accuracy of each."""
    images, labels = jnp.asarray(upstream.train.images(range(len(upstream.train)))), jnp.asarray(upstream.train.labels)
    graph, params, rest = nnx.split(Network(5, rngs=nnx.Rngs(seed)), nnx.Param, ...)

    def fit(kind: str, sparsity: float, params: Any, rest: Any, steps: int, salt: int, state: Any = None) -> Any:
        order = _order(len(labels), steps, (seed, salt))
        return _trainer(kind, sparsity)(params, rest, state, images, labels, order)

    dense = fit("dense", 0.0, params, rest, 800, 0)
    pruned = [("Dense", 0.0, *dense)]
    for sparsity in sparsities:
        pruned.append(("GMP", sparsity, *fit("GMP", sparsity, *dense, 800, 1)))
        pruned.append(("AC/DC", sparsity, *fit("AC/DC", sparsity, params, rest, 930, 2)))
        pruned.append(("LTH-T", sparsity, _ticket(fit, dense, sparsity), dense[1]))
    rows = []
    for method, sparsity, *state in pruned:
        model = nnx.merge(graph, *state)
        rows.append(_backbone(upstream, model, method, sparsity))
        if method == "LTH-T":
            again = transfer.recalibrate_batch_norm(model, upstream.train, batch_size=len(upstream.train))
            rows.append(_backbone(upstream, again, "LTH-T recalibrated", sparsity))
    return rows


def _ticket(fit: Any, dense: Any, sparsity: float) -> Any:
    """The mask of iterative pruning, each round from the dense weights, on the dense weights."""
    rounds = math.ceil(math.log(1 - sparsity) / math.log(0.8)) // 2

    def train(params: Any, mask: Any, number: int) -> Any:
        state = pruning.pruned(_sgd(_thirds(0.01, 200)), pruning.fixed(mask), where=PRUNABLE).init(params)
        return fit("ticket", 0.0, params, dense[1], 200, 10 + number, state)[0]

    rate = 1 - (1 - sparsity) ** (1 / rounds)
    *_, last = pruning.lottery_tickets(train, dense[0], sparsity, rate=rate, where=PRUNABLE)
    return last.params


def _backbone(
    upstream: data.ImageTask, model: Network, method: str, sparsity: float
) -> tuple[transfer.Backbone, float]:
    predicted = transfer.predict(model, upstream.test)
    category = CATEGORY.get(method)
    backbone = transfer.Backbone(model, method, sparsity, "mlp", category=category)
    return backbone, transfer.top1_accuracy(upstream.test.labels, predicted)


def _stored(folder: Path, upstream: data.ImageTask, seed: int, sparsities: Sequence[float]) -> list[Any]:
    """Return what `train_upstream` returns, from the folder if it is stored there."""
    import pickle

    file = folder / f"upstream-{seed}-{'-'.join(map(str, sparsities))}.pickle"
    if not file.exists():
        draft = file.with_suffix(f".{os.getpid()}.partial")
        draft.write_bytes(pickle.dumps(train_upstream(upstream, seed, sparsities)))
        draft.replace(file)
    return pickle.loads(file.read_bytes())


def run_study(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = range(5),
    sparsities: Sequence[float] = SPARSITIES,
    tasks: Sequence[str] = TASKS,
    workers: int = 2,
    full_steps: int = FULL_STEPS,
    probe_epochs: int = 150,
) -> Any:
    """Run every job that the folder does not have yet.

    Args:
      folder: with the data.
      out: results; made if absent.
      seeds: whole runs, upstream and downstream.
      sparsities: of the pruned networks.
      tasks: names of downstream tasks.
      workers: processes.
      full_steps: optimizer steps of full fine-tuning, to the nearest epoch.
      probe_epochs: of the SGD classifier.

    Returns:
      (results, upstream): a row for each downstream run with regime "linear" (the study's SGD on raw features), LBFGS
      (logistic regression on standardised ones) or "full"; and a row for each upstream network.
    """
    import joblib
    import pandas as pd

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    upstream, downstream = make_data(folder)
    jobs = [joblib.delayed(_stored)(out, upstream, seed, tuple(sparsities)) for seed in seeds]
    networks = dict(zip(seeds, joblib.Parallel(n_jobs=workers)(jobs), strict=True))
    parts = []
    for seed in seeds:
        backbones = [backbone for backbone, _ in networks[seed]]
        run = functools.partial(transfer.run_transfer, seeds=(seed,), n_jobs=workers)
        chosen = [downstream[name] for name in tasks]
        sgd = transfer.StudySettings(linear=transfer.SGDConfig.linear(epochs=probe_epochs))
        parts.append(run(backbones, chosen, out / f"seed-{seed}", regimes=("linear",), settings=sgd))
        lbfgs = transfer.StudySettings(solver="lbfgs", standardize=True)
        parts.append(run(backbones, chosen, out / f"seed-{seed}", regimes=("linear",), settings=lbfgs))
        parts[-1]["regime"] = LBFGS
    # Step functions are compiled for each task, so one process takes a task with all its networks.
    jobs = [joblib.delayed(_trained)(downstream[name], networks, out, full_steps) for name in tasks]
    parts += joblib.Parallel(n_jobs=workers)(jobs)
    above = [
        {"arch": "mlp", "method": b.method, "sparsity": b.sparsity, "seed": seed, "accuracy": accuracy}
        for seed in seeds
        for b, accuracy in networks[seed]
    ]
    return pd.concat(parts, ignore_index=True), pd.DataFrame(above)


def _trained(task: data.ImageTask, networks: dict[int, list[Any]], out: Path, full_steps: int) -> Any:
    """Full fine-tuning of all networks of all seeds on one task."""
    import pandas as pd

    epochs = max(1, round(full_steps / -(-len(task.train) // BATCH)))
    changes = (("epochs", epochs), ("learning_rate", FULL_RATE))
    settings = transfer.StudySettings(full=changes, kernels="dense")  # too small for sparse kernels to pay
    parts = []
    for seed, pruned in networks.items():
        # Batch statistics are estimated again in training, so stale and recalibrated tickets are one starting point.
        start = [backbone for backbone, _ in pruned if backbone.method != "LTH-T recalibrated"]
        folder = out / f"full-{task.name}" / f"seed-{seed}"  # a folder has one writer; tasks run side by side
        parts.append(transfer.run_transfer(start, [task], folder, regimes=("full",), seeds=(seed,), settings=settings))
    return pd.concat(parts, ignore_index=True)


def summary(results: Any, upstream: Any) -> Any:
    """Return mean test accuracy over seeds and tasks, one row for each model, one column for each regime."""
    keys = ["method", "sparsity"]
    table = upstream.groupby(keys)["accuracy"].mean().rename("upstream").to_frame()
    wide = results.groupby([*keys, "regime"])["value"].mean().unstack("regime")
    return table.join(wide[["linear", LBFGS, "full"]]).reindex(METHODS, level="method")


def paired(results: Any, regime: str, one: tuple[str, float], other: tuple[str, float]) -> dict[str, Any]:
    """Compare two models over pairs of seed and task: mean difference in points, pairs in favour of the first.

    Returns:
      ``points``, ``better``, ``pairs``, and ``by_seed``: the mean difference of each seed.
    """
    part = results[results["regime"] == regime].set_index(["method", "sparsity"])
    sides = [part.loc[[key]].set_index(["seed", "dataset"])["value"] for key in (one, other)]
    difference = 100 * (sides[0] - sides[1]).dropna()
    by_seed = difference.groupby("seed").mean()
    better = int((difference > 0).sum())
    return {"points": difference.mean(), "better": better, "pairs": len(difference), "by_seed": by_seed.tolist()}


def reading_sentence(reading: dict[str, float], sparsity: float) -> str:
    """Say how the frozen ticket depends on how it is read; ``reading`` is accuracy, in percent, by reading."""
    start = reading["LTH-T stale, SGD"]
    lifted, repaired = reading["LTH-T stale, standardised"] - start, reading["LTH-T recalibrated, SGD"] - start
    ahead = reading["LTH-T stale, standardised"] - reading["dense, standardised"]
    return (
        f"At sparsity {sparsity:g}, standardising the features changes the frozen ticket's accuracy by {lifted:+.1f}"
        f" points, recalibrating its batch norm by {repaired:+.1f} points. With standardised features for both, the"
        f" ticket is {ahead:+.1f} points from the dense network."
    )


def main() -> None:
    """Run, print, and write ``results.csv``, ``upstream.csv`` and the page of the analysis."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with mnist10k and semeion")
    parser.add_argument("--out", type=Path, default=Path("transfer-digits"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    results, upstream = run_study(
        arguments.data, arguments.out, seeds=range(arguments.seeds), workers=arguments.workers
    )
    results.to_csv(arguments.out / "results.csv", index=False)
    upstream.to_csv(arguments.out / "upstream.csv", index=False)
    transfer.report(results, groups={}, min_error=0.005).save(arguments.out / "report")
    print(summary(results, upstream).round(3).to_string())
    print(f"runs in {arguments.out / 'results.csv'}, tests in {arguments.out / 'report'}")


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")  # one thread for each process
    import transfer_digits  # worker processes need the functions of a module that they can import

    transfer_digits.main()
