"""A small study of pruning methods: scikit-learn's digits, one convolutional network, many ways to make it sparse.

A method's runs, sparsities x seeds, are lanes of one program by ``jax.vmap``: the 3 x 3 convolutions are patches and a
matrix product, so that lanes become batched products. Masks change only in the last step of an epoch, where the
method's own ``refresh`` says so. The steps between decide nothing, so all methods that keep pruned weights at zero
share one compiled program for them. The notebook ``notebooks/acdc.ipynb`` uses this file; by itself it prints a table:

    python examples/pruning_digits.py --workers 2
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sparsejax import pruning
from sparsejax.data import idx_dataset

BATCH = 64
NOISE = 0.25
TEST_DRAWS = 4
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


class Conv3x3(nn.Module):
    """A convolution without bias, as patches and a matrix product."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``float[B, H, W, C] -> float[B, H, W, features]``."""
        height, width, channels = x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, channels, self.features))
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, self.features)


class Net(nn.Module):
    """Two convolutions with batch norm, ReLU and pooling, two dense layers; 10,696 prunable weights at 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """``float[B, side, side, 1] -> float[B, 10]``, the side a multiple of 4."""
        for features in (8, 16):
            x = Conv3x3(features)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
            x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, features).max((2, 4))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


@dataclass(frozen=True)
class Design:
    """What the runs of a study have in common.

    Attributes:
      levels: sparsities.
      seeds: number of seeds.
      epochs: passes over the training images.
      learning_rate: peak, after a linear warm-up of a sixteenth of the run; then cosine to 0.
      weight_decay: coupled, on every parameter.
      momentum: of SGD.
      warmup, phase, last_dense, final_sparse: epochs of AC/DC's phases; ``phase`` is that of an inner one.
      source: "digits", or a folder of IDX files whose images are made 16 x 16 pixels.
      train_images: the first images; the others are for testing.
      side: pixels.
    """

    levels: tuple[float, ...] = (0.9, 0.95, 0.98)
    seeds: int = 3
    epochs: int = 80
    learning_rate: float = 0.2
    weight_decay: float = 2e-3
    momentum: float = 0.9
    warmup: int = 8
    phase: int = 8
    last_dense: int = 8
    final_sparse: int = 12
    source: str = "digits"
    train_images: int = 1280
    side: int = 8

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.train_images // BATCH

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return self.epochs * self.per_epoch

    @property
    def layers(self) -> tuple[pruning.LayerShape, ...]:
        """Return the prunable layers, for counting."""
        return (
            pruning.LayerShape("Conv3x3_0/kernel", (3, 3, 1, 8), positions=self.side**2),
            pruning.LayerShape("Conv3x3_1/kernel", (3, 3, 8, 16), positions=self.side**2 // 4),
            pruning.LayerShape("Dense_0/kernel", (self.side**2, 128), bias=True),
            pruning.LayerShape("Dense_1/kernel", (128, 10), bias=True),
        )

    @property
    def weights(self) -> int:
        """Number of prunable weights."""
        return sum(layer.size for layer in self.layers)

    def flops(self, nnz: dict[str, int] | None = None) -> int:
        """Return the operations of a forward pass of one image, by the rules of the AC/DC authors."""
        pixels = self.side**2 * 8 + self.side**2 // 4 * 16  # values before the two poolings, which halve each side
        other = pruning.OtherOps(batch_norm=pixels, relu=pixels + 128, pooling=pixels)
        return pruning.forward_flops(self.layers, nnz, other)

    def inner(self) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer that every method wraps."""
        rate = optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, self.steps // 16, self.steps)
        return optax.chain(optax.add_decayed_weights(self.weight_decay), optax.sgd(rate, momentum=self.momentum))

    def phases(self, **optimizer: float) -> pruning.PhaseList:
        """Return the phases of AC/DC in steps; with the optimizer's numbers also their length in decay times."""
        return pruning.acdc_phases(
            total=self.epochs, warmup=self.warmup, sparse=self.phase, dense=self.phase, last_dense=self.last_dense,
            final_sparse=self.final_sparse, steps_per_unit=self.per_epoch, **optimizer,
        )  # fmt: skip

    def step_at(self, share: float) -> int:
        """Return the step at the end of the epoch that is ``share`` of the run."""
        return round(share * self.epochs) * self.per_epoch


class Contender(NamedTuple):
    """A way to make the network sparse.

    Attributes:
      make: design, sparsity, seed -> method. It is called inside compiled programs, where the seed is a traced number:
        every lane draws its own masks.
      scores: loss on the first batch, parameters -> scores of a mask at initialisation; None where there is none.
      stored: whether parameters are stored that the forward pass does not use.
    """

    make: Callable[[Design, float, Any], pruning.Method]
    scores: Callable[[Callable[[Any], jax.Array], Any], Any] | None = None
    stored: bool = False


def _gradual(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    begin, end = design.step_at(0.1), design.step_at(0.75)
    ramp = pruning.schedules.cubic(0.0, sparsity, begin=begin, end=end)
    return pruning.magnitude(ramp, refresh=pruning.every(design.per_epoch, begin, end))


def _set(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    end = design.step_at(0.75)
    drop = pruning.schedules.cosine_drop(0.3, end)
    return pruning.set_(sparsity, every=design.per_epoch, end=end, drop=drop, seed=seed)


def _rigl(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    return pruning.rigl(sparsity, every=design.per_epoch, end=design.step_at(0.75), seed=seed)


def _top_kast(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    backward = round(1 - 2 * (1 - sparsity), 6)  # twice as many weights train as are used
    return pruning.top_kast(sparsity, backward, period=design.per_epoch, scope="erk")


METHODS = {
    "dense": Contender(lambda design, sparsity, seed: pruning.external()),
    "AC/DC": Contender(lambda design, sparsity, seed: pruning.acdc(sparsity, design.phases())),
    "GMP": Contender(_gradual),
    "one-shot": Contender(lambda design, sparsity, seed: pruning.one_shot(sparsity, at=design.step_at(0.85))),
    "RigL": Contender(_rigl),
    "SET": Contender(_set),
    "Top-KAST": Contender(_top_kast, stored=True),
    "static": Contender(lambda design, sparsity, seed: pruning.static(sparsity, seed=seed)),
    "SNIP": Contender(lambda design, sparsity, seed: pruning.external(), scores=pruning.scores.snip),
}


class Data(NamedTuple):
    """Training images under every one of ``SHIFTS``, float32[9, N, side, side, 1]; fixed noisy draws of test images."""

    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def _images(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Return images float[N, side, side] in [0, 1] and labels, those for training first."""
    if design.source == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        return bunch.images[order] / 16.0, bunch.target[order]
    read = idx_dataset(design.source)
    images = np.concatenate([read.train_images, read.test_images])[..., 0]
    margin = design.side - images.shape[1] // 2  # pad 28 pixels to 32, then 2 x 2 means
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    halved = padded.reshape(len(images), design.side, 2, design.side, 2).mean((2, 4))
    return halved, np.concatenate([read.train_labels, read.test_labels])


def make_data(design: Design) -> Data:
    """Split and shift the images, and draw the test images."""
    images, labels = _images(design)
    padded, side = np.pad(images, ((0, 0), (1, 1), (1, 1))), design.side
    shifted = np.stack([padded[:, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side] for dy, dx in SHIFTS])[..., None]
    train, held_out = np.split(shifted.astype(np.float32), [design.train_images], axis=1)
    train_labels, test_labels = np.split(labels.astype(np.int32), [design.train_images])
    rng, count = np.random.default_rng(1), len(test_labels)
    draws = [held_out[rng.integers(len(SHIFTS), size=count), np.arange(count)] for _ in range(TEST_DRAWS)]
    test = np.concatenate(draws)
    noise = NOISE * rng.standard_normal(test.shape, np.float32)
    return Data(train, train_labels, test + noise, np.tile(test_labels, TEST_DRAWS))


def _batches(design: Design, epoch: int, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Draw an epoch's batches for every seed, [seeds, steps, 64, ...]: a new order, new shifts and new noise.

    NumPy: programs that draw random numbers take XLA longer to compile than all of training.
    """
    drawn = []
    for seed in range(design.seeds):
        rng, count = np.random.default_rng((seed, epoch)), len(data.labels)
        order = rng.permutation(count)
        images = data.train[rng.integers(len(SHIFTS), size=count), order]
        images = images + NOISE * rng.standard_normal(images.shape, np.float32)
        shape = (design.per_epoch, BATCH)
        drawn.append((images.reshape(*shape, *images.shape[1:]), data.labels[order].reshape(shape)))
    images, labels = zip(*drawn, strict=True)
    return np.stack(images), np.stack(labels)


def _initial(design: Design, seed: int) -> tuple[Any, Any]:
    """Return initial parameters and batch statistics: kernels of variance 1 / fan-in, as Flax has them."""
    image = jax.ShapeDtypeStruct((1, design.side, design.side, 1), jnp.float32)
    shapes = jax.eval_shape(lambda image: Net().init(jax.random.key(0), image, False), image)
    rng = np.random.default_rng(seed)

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            return rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        return np.full(leaf.shape, name in ("scale", "var"), np.float32)

    filled = jax.tree_util.tree_map_with_path(fill, shapes)
    return filled["params"], filled["batch_stats"]


class Lane(NamedTuple):
    """One run: parameters, batch statistics, optimizer state; in the programs with leading axes [levels, seeds]."""

    params: Any
    stats: Any
    state: Any


def _loss(params: Any, stats: Any, batch: Any) -> tuple[jax.Array, Any]:
    images, labels = batch
    logits, changed = Net().apply({"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed["batch_stats"]


def _gradients(stored: bool, lane: Lane, batch: Any) -> tuple[Any, Any]:
    """Return the gradients of a batch, and the new batch statistics."""

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        used = pruning.forward_params(params, lane.state) if stored else params
        return _loss(used, lane.stats, batch)

    return jax.grad(loss_of, has_aux=True)(lane.params)


def _updated(tx: Any, refresh: bool, lane: Lane, grads: Any, stats: Any) -> Lane:
    """Make an optimizer step; nothing here knows a method."""
    updates, state = tx.update(grads, lane.state, lane.params, refresh=refresh)
    return Lane(optax.apply_updates(lane.params, updates), stats, state)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _steps(tx: Any, stored: bool, lanes: Lane, batches: Any, begin: int, end: int) -> Lane:
    """Make steps in which no mask changes, on some of the batches [seeds, steps, 64, ...], which the levels share."""

    def run(lane: Lane, batches: Any) -> Lane:
        def step(i: jax.Array, lane: Lane) -> Lane:
            return _updated(tx, False, lane, *_gradients(stored, lane, jax.tree.map(lambda each: each[i], batches)))

        return jax.lax.fori_loop(begin, end, step, lane)

    return jax.vmap(jax.vmap(run), in_axes=(0, None))(lanes, batches)


@functools.partial(jax.jit, static_argnums=0)
def _batch_gradients(stored: bool, lanes: Lane, batch: Any) -> tuple[Any, Any]:
    return jax.vmap(jax.vmap(functools.partial(_gradients, stored)), in_axes=(0, None))(lanes, batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _changing_step(contender: Contender, design: Design, lanes: Lane, grads: Any, stats: Any) -> Lane:
    """Make the step that ends with a change of the masks; counts are static, so each level is traced by itself."""

    def update(sparsity: float, seed: jax.Array, *step: Any) -> Lane:
        tx = pruning.pruned(design.inner(), contender.make(design, sparsity, seed))
        return _updated(tx, True, *step)

    seeds, step = jnp.arange(design.seeds), (lanes, grads, stats)
    levels = [
        jax.vmap(functools.partial(update, sparsity))(seeds, *jax.tree.map(lambda leaf, i=i: leaf[i], step))
        for i, sparsity in enumerate(design.levels)
    ]
    return _stacked(levels)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(contender: Contender, design: Design, params: Any, stats: Any, batch: Any) -> Lane:
    """Start all lanes; those of one seed from the same weights."""

    def start(sparsity: float, seed: jax.Array, params: Any, stats: Any, batch: Any) -> Lane:
        tx = pruning.pruned(design.inner(), contender.make(design, sparsity, seed))
        initial = params
        params, state = (params, tx.init(params)) if contender.stored else pruning.init(tx, params)
        if contender.scores is not None:
            scores = contender.scores(lambda params: _loss(params, stats, batch)[0], initial)
            params, state = pruning.prune(tx, params, state, pruning.mask_from_scores(scores, sparsity))
        return Lane(params, stats, state)

    arguments = (jnp.arange(design.seeds), params, stats, batch)
    return _stacked([jax.vmap(functools.partial(start, sparsity))(*arguments) for sparsity in design.levels])


def _stacked(levels: Sequence[Lane]) -> Lane:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *levels)


@functools.partial(jax.jit, static_argnums=0)
def _correct(stored: bool, lanes: Lane, images: jax.Array, labels: jax.Array) -> jax.Array:
    def accuracy(lane: Lane) -> jax.Array:
        used = pruning.forward_params(lane.params, lane.state) if stored else lane.params
        logits = Net().apply({"params": used, "batch_stats": lane.stats}, images, False)
        return (logits.argmax(-1) == labels).mean()

    return jax.vmap(jax.vmap(accuracy))(lanes)


def _accuracy(stored: bool, lanes: Lane, data: Data, draws: int = TEST_DRAWS) -> np.ndarray:
    """Return the accuracy of every lane on the first draws of the test images, [levels, seeds]."""
    count = len(data.test) // TEST_DRAWS
    parts = [slice(i * count, (i + 1) * count) for i in range(draws)]
    return np.mean([_correct(stored, lanes, data.test[part], data.test_labels[part]) for part in parts], axis=0)


@functools.partial(jax.jit, static_argnums=0)
def _nonzero(stored: bool, lanes: Lane) -> dict[str, jax.Array]:
    """Return the number of weights other than 0 in every prunable layer, [levels, seeds]."""

    def count(lane: Lane) -> dict[str, jax.Array]:
        used = pruning.forward_params(lane.params, lane.state) if stored else lane.params
        return {f"{name}/kernel": jnp.sum(layer["kernel"] != 0) for name, layer in used.items() if "kernel" in layer}

    return jax.vmap(jax.vmap(count))(lanes)


@jax.jit
@jax.vmap
@jax.vmap
def _overlap(first: Any, second: Any) -> pruning.Overlap:
    return pruning.overlap(first, second)[0]


@dataclass(frozen=True)
class Run:
    """What came out of a method's lanes; the last axes of all arrays are [levels, seeds].

    Attributes:
      design: of the run.
      accuracy: on the test draws, at the end.
      kept: ones in the masks at the end.
      curve: accuracy on the first draw alone at the end of each epoch, [epochs, ...], before the mask changes.
      nonzero: weights other than 0 by layer, at the same times.
      changes: for each change of the support its epoch and how it compares with the support before; epochs in which
        all weights are free are passed over.
      final_nonzero: weights other than 0 at the end.
      before: accuracy at the end of the last dense phase; AC/DC only, as what follows.
      partner: accuracy of the dense partner, which goes on from there without compression.
      partner_nonzero: share of weights other than 0 at that time.
      seconds: CPU time, compilation included.
    """

    design: Design
    accuracy: np.ndarray
    kept: np.ndarray
    curve: np.ndarray
    nonzero: dict[str, np.ndarray]
    changes: list[tuple[int, pruning.Overlap]]
    final_nonzero: np.ndarray
    seconds: float
    before: np.ndarray | None = None
    partner: np.ndarray | None = None
    partner_nonzero: np.ndarray | None = None

    def density(self) -> np.ndarray:
        """Return the mean share of weights other than 0 over training."""
        return np.sum([count.mean(axis=0) for count in self.nonzero.values()], axis=0) / self.design.weights

    def lost(self) -> np.ndarray:
        """Return the share of the support that each change loses, [changes, levels, seeds]."""
        return np.stack([each.lost for _, each in self.changes])

    def flops(self) -> np.ndarray:
        """Return the operations of training by the rules of the AC/DC authors, relative to the dense network."""
        total = np.zeros(self.accuracy.shape)
        dense = pruning.training_flops([(self.design.flops(), self.design.train_images)] * self.design.epochs)
        for lane in np.ndindex(*total.shape):
            counts = [
                {path: int(each[epoch][lane]) for path, each in self.nonzero.items()}
                for epoch in range(self.design.epochs)
            ]
            epochs = [(self.design.flops(each), self.design.train_images) for each in counts]
            total[lane] = pruning.training_flops(epochs) / dense
        return total


def _between(design: Design) -> optax.GradientTransformationExtraArgs:
    """Return the transform of steps in which no mask changes, the same for all methods that share a program."""
    return _external(replace(design, levels=(), seeds=0))


@functools.lru_cache(maxsize=8)
def _external(design: Design) -> optax.GradientTransformationExtraArgs:
    return pruning.pruned(design.inner(), pruning.external())


def _at(batches: Any, index: int) -> Any:
    return jax.tree.map(lambda each: each[:, index], batches)


def run(name: str, design: Design) -> Run:
    """Train all lanes of a method and watch them."""
    started = time.process_time()
    data, contender = make_data(design), METHODS[name]
    method = contender.make(design, design.levels[0], 0)  # when masks change depends on neither level nor seed
    stored = contender.stored
    between = pruning.pruned(design.inner(), method) if stored else _between(design)
    fork_at = design.phases().last_dense.stop // design.per_epoch if name == "AC/DC" else None
    initial = [_initial(design, seed) for seed in range(design.seeds)]
    params, stats = jax.tree.map(lambda *leaves: np.stack(leaves), *initial)
    lanes = _start(contender, design, params, stats, _at(_batches(design, 0, data), 0))
    last = design.per_epoch - 1
    support, changes, watched, forked = None, [], [], {}
    for epoch in range(design.epochs):
        batches = _batches(design, epoch, data)
        lanes = _steps(between, stored, lanes, batches, 0, last)
        watched.append((_accuracy(stored, lanes, data, draws=1), _nonzero(stored, lanes)))
        if epoch + 1 == fork_at:
            forked = _go_on_dense(design, data, lanes, epoch)
        # Not after the last step: nothing would be trained inside the new masks.
        if epoch + 1 == design.epochs or not method.refresh((epoch + 1) * design.per_epoch):
            lanes = _steps(between, stored, lanes, batches, last, last + 1)
            continue
        gradients = _batch_gradients(stored, lanes, _at(batches, last))
        lanes = _changing_step(contender, design, lanes, *gradients)
        mask = pruning.get_mask(lanes.state)
        if all(bool(leaf.all()) for leaf in jax.tree.leaves(mask)):
            continue
        if support is not None:
            changes.append((epoch + 1, jax.tree.map(np.asarray, _overlap(support, mask))))
        support = mask
    curve, nonzero = jax.tree.map(lambda *each: np.stack(each), *watched)
    return Run(
        design=design,
        accuracy=_accuracy(stored, lanes, data),
        kept=np.asarray(jax.vmap(jax.vmap(pruning.metrics))(lanes.state)["nnz"]),
        curve=curve,
        nonzero=nonzero,
        changes=changes,
        final_nonzero=_total(_nonzero(stored, lanes)),
        seconds=time.process_time() - started,
        **forked,
    )


def _total(counts: dict[str, jax.Array]) -> np.ndarray:
    return np.sum([np.asarray(count) for count in counts.values()], axis=0)


def _go_on_dense(design: Design, data: Data, lanes: Lane, epoch: int) -> dict[str, np.ndarray]:
    """Train the dense partner: from the last step of the last dense phase, for the epochs of the final sparse phase.

    With all weights free, these are the steps of the inner optimizer alone, with the state that
    ``pruning.dense_partner`` gives; the program for them is compiled already.
    """
    before, share = _accuracy(False, lanes, data), _total(_nonzero(False, lanes)) / design.weights
    for later in range(epoch, design.epochs):
        begin = design.per_epoch - 1 if later == epoch else 0
        lanes = _steps(_between(design), False, lanes, _batches(design, later, data), begin, design.per_epoch)
    return {"before": before, "partner": _accuracy(False, lanes, data), "partner_nonzero": share}


def lottery(design: Design, sparsity: float, watched: Sequence[int]) -> list[dict[str, float]]:
    """Find lottery tickets in rounds of the design's length.

    Args:
      design: ``epochs`` are those of one round; one seed.
      sparsity: of the last ticket.
      watched: rounds to report; the last one is added.

    Returns:
      A row for each, with the accuracy of the trained ticket and of masks shuffled within the layers. Round 0 is dense.
    """
    data, tx = make_data(design), _between(design)
    batches = [_batches(design, epoch, data) for epoch in range(design.epochs)]
    initial, stats = _initial(design, 0)
    accuracy: list[float] = []

    def train(params: Any, mask: Any, number: int) -> Any:
        params, state = pruning.prune(tx, params, tx.init(params), mask)
        lanes = jax.tree.map(lambda leaf: leaf[None, None], Lane(params, stats, state))
        for each in batches:
            lanes = _steps(tx, False, lanes, each, 0, design.per_epoch)
        accuracy.append(float(_accuracy(False, lanes, data)[0, 0]))
        return jax.tree.map(lambda leaf: leaf[0, 0], lanes.params)

    tickets = list(pruning.lottery_tickets(train, initial, sparsity))
    train(tickets[-1].params, tickets[-1].mask, len(tickets) + 1)
    rows = [{"round": 0, "sparsity": 0.0, "ticket": 100 * accuracy[0], "shuffled": float("nan")}]
    for ticket in tickets:
        if ticket.round in watched or ticket is tickets[-1]:
            train(initial, pruning.shuffle_within_layers(ticket.mask), 0)
            row = {"round": ticket.round, "sparsity": ticket.sparsity, "ticket": 100 * accuracy[ticket.round]}
            rows.append(row | {"shuffled": 100 * accuracy[-1]})
    return rows


def run_many(names: Sequence[str], design: Design, workers: int) -> dict[str, Run]:
    """Run methods in processes of their own."""
    from joblib import Parallel, delayed

    dense = replace(design, levels=(0.0,))
    jobs = [delayed(run)(name, dense if name == "dense" else design) for name in names]
    return dict(zip(names, Parallel(n_jobs=workers)(jobs), strict=True))


def table(runs: dict[str, Run]) -> str:
    """Return accuracy (mean and standard deviation over seeds, in points) and, at the middle level, cost as text."""
    levels = max((each.design.levels for each in runs.values()), key=len)
    lines = [f"{'method':10}" + "".join(f"{level:>12.0%}" for level in levels) + "   density   FLOP   CPU s"]
    for name, each in runs.items():
        mean, sd = 100 * each.accuracy.mean(-1), 100 * each.accuracy.std(-1, ddof=min(1, each.design.seeds - 1))
        cells = "".join(f"{m:7.1f} ± {s:.1f}" for m, s in zip(mean, sd, strict=True)).ljust(12 * len(levels))
        middle = len(mean) // 2
        cost = f"{each.density()[middle].mean():8.3f} {each.flops()[middle].mean():6.3f} {each.seconds:7.0f}"
        lines.append(f"{name:10}{cells}  {cost}")
    return "\n".join(lines)


def points(run: Run, level: float) -> float:
    """Return the mean accuracy over seeds at a sparsity, in points."""
    return 100 * float(run.accuracy[run.design.levels.index(level)].mean())


def statements(runs: dict[str, Run]) -> list[tuple[str, bool, str]]:
    """Return the orderings that the literature reports, whether they hold here, and the numbers.

    Margins are in points of accuracy, over the mean of the seeds.
    """
    found = []

    def state(what: str, level: float, *names: str, margins: Sequence[float]) -> None:
        values = [points(runs[name], level) for name in names]
        holds = all(a - b > margin for a, b, margin in zip(values[:-1], values[1:], margins, strict=True))
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in zip(names, values, strict=True))
        found.append((f"{level:.0%}: {what}", holds, numbers))

    for level in (0.95, 0.98):
        state("AC/DC is not below GMP (1 point)", level, "AC/DC", "GMP", margins=(-1,))
        for name in ("AC/DC", "GMP"):
            what = f"{name} is above RigL, and RigL above static masks (3 points each)"
            state(what, level, name, "RigL", "static", margins=(3, 3))
        state("RigL is not below SET (1 point)", level, "RigL", "SET", margins=(-1,))
    state("RigL is above SET (10 points)", 0.98, "RigL", "SET", margins=(10,))
    state("AC/DC is above GMP", 0.98, "AC/DC", "GMP", margins=(0,))
    acdc = runs["AC/DC"]
    for level, lost in zip(acdc.design.levels, acdc.lost().mean(-1).T, strict=True):
        falls = bool((np.diff(lost) < 0).all()) and lost[-1] < 0.06
        numbers = ", ".join(f"{each:.3f}" for each in lost)
        found.append(
            (f"{level:.0%}: AC/DC loses less of its support at each compression, at last below 0.06", falls, numbers)
        )
    for name, each in runs.items():
        if name != "dense":
            promised = np.array([pruning.global_count(level, [each.design.weights]) for level in each.design.levels])
            exact = bool((each.kept == promised[:, None]).all())
            found.append((f"{name} keeps exactly the promised number", exact, str(each.kept[:, 0].tolist())))
    return found


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    runs = run_many(arguments.methods, Design(seeds=arguments.seeds), arguments.workers)
    print(table(runs))
    if set(arguments.methods) == set(METHODS):
        for statement, holds, numbers in statements(runs):
            print("yes" if holds else "NO ", statement, numbers)


if __name__ == "__main__":
    import pruning_digits  # worker processes need the functions of a module that they can import

    pruning_digits.main()
