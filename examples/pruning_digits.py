"""A small study of pruning methods: scikit-learn's digits, one convolutional network, many ways to make it sparse.

``noisy_digits.py`` has the images, the network and its training, ``pruning_programs.py`` the compiled programs; here
are the methods and the runs. ``pruning_findings.py`` says what they show. The notebook ``notebooks/acdc.ipynb`` uses
this file; by itself it prints tables:

    python examples/pruning_digits.py --workers 2

``--backend dask`` and ``--backend ray`` run the methods on a cluster, whose workers have this folder on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pruning_findings as findings
import pruning_programs as programs
import verdicts
from noisy_digits import Data, Design, epoch_batches, initial_weights, make_data
from pruning_programs import Contender, Lane

from sparsejax import pruning
from sparsejax.analysis._parallel import add_backend_options, run_jobs


def _gradual(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    begin, end = design.step_at(0.1), design.step_at(0.75)
    ramp = pruning.schedules.cubic(0.0, sparsity, begin=begin, end=end)
    return pruning.magnitude(ramp, update_every=design.per_epoch, start=begin, stop=end)


def _set(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    end = design.step_at(0.75)
    drop = pruning.schedules.cosine_drop(0.3, end)
    last = end - design.per_epoch
    return pruning.sparse_evolutionary_training(
        sparsity, update_every=design.per_epoch, stop=last, drop=drop, seed=seed
    )


def _rigl(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    last = design.step_at(0.75) - design.per_epoch
    return pruning.rigl(sparsity, update_every=design.per_epoch, stop=last, seed=seed)


def _top_kast(design: Design, sparsity: float, seed: Any) -> pruning.Method:
    backward = round(1 - 2 * (1 - sparsity), 6)  # twice as many weights train as are used
    return pruning.top_kast(sparsity, backward, update_every=design.per_epoch, scope="erk")


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
        dense = pruning.accounting.training_flops(
            [(self.design.flops(), self.design.train_images)] * self.design.epochs
        )
        for lane in np.ndindex(*total.shape):
            counts = [
                {path: int(each[epoch][lane]) for path, each in self.nonzero.items()}
                for epoch in range(self.design.epochs)
            ]
            epochs = [(self.design.flops(each), self.design.train_images) for each in counts]
            total[lane] = pruning.accounting.training_flops(epochs) / dense
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
    initial = [initial_weights(design, seed) for seed in range(design.seeds)]
    params, stats = jax.tree.map(lambda *leaves: np.stack(leaves), *initial)
    lanes = programs.start(contender, design, params, stats, _at(epoch_batches(design, 0, data), 0))
    last = design.per_epoch - 1
    support, changes, watched, forked = None, [], [], {}
    for epoch in range(design.epochs):
        batches = epoch_batches(design, epoch, data)
        lanes = programs.steps(between, stored, lanes, batches, 0, last)
        watched.append((programs.accuracy(stored, lanes, data, draws=1), programs.nonzero(stored, lanes)))
        if epoch + 1 == fork_at:
            forked = _go_on_dense(design, data, lanes, epoch)
        # Not after the last step: nothing would be trained inside the new masks.
        if epoch + 1 == design.epochs or not method.refresh((epoch + 1) * design.per_epoch):
            lanes = programs.steps(between, stored, lanes, batches, last, last + 1)
            continue
        gradients = programs.batch_gradients(stored, lanes, _at(batches, last))
        lanes = programs.changing_step(contender, design, lanes, *gradients)
        mask = pruning.get_mask(lanes.state)
        if all(bool(leaf.all()) for leaf in jax.tree.leaves(mask)):
            continue
        if support is not None:
            changes.append((epoch + 1, jax.tree.map(np.asarray, programs.overlap(support, mask))))
        support = mask
    curve, nonzero = jax.tree.map(lambda *each: np.stack(each), *watched)
    return Run(
        design=design,
        accuracy=programs.accuracy(stored, lanes, data),
        kept=np.asarray(jax.vmap(jax.vmap(pruning.metrics))(lanes.state)["nnz"]),
        curve=curve,
        nonzero=nonzero,
        changes=changes,
        final_nonzero=_total(programs.nonzero(stored, lanes)),
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
    before, share = programs.accuracy(False, lanes, data), _total(programs.nonzero(False, lanes)) / design.weights
    for later in range(epoch, design.epochs):
        begin = design.per_epoch - 1 if later == epoch else 0
        batches = epoch_batches(design, later, data)
        lanes = programs.steps(_between(design), False, lanes, batches, begin, design.per_epoch)
    return {"before": before, "partner": programs.accuracy(False, lanes, data), "partner_nonzero": share}


def lottery(design: Design, sparsity: float, watched: Sequence[int], seed: int) -> list[dict[str, float]]:
    """Find lottery tickets in rounds of the design's length.

    Args:
      design: ``epochs`` are those of one round.
      sparsity: of the last ticket.
      watched: rounds to report; the last one is added.
      seed: of the initial weights and of the order of the data.

    Returns:
      A row for each, with the accuracy of the trained ticket and of masks shuffled within the layers. Round 0 is dense.
    """
    data, tx = make_data(design), _between(design)
    all_seeds = replace(design, seeds=seed + 1)
    batches = [tuple(each[seed:] for each in epoch_batches(all_seeds, epoch, data)) for epoch in range(design.epochs)]
    initial, stats = initial_weights(design, seed)
    accuracy: list[float] = []

    def train(params: Any, mask: Any, number: int) -> Any:
        params, state = pruning.prune(tx, params, tx.init(params), mask)
        lanes = jax.tree.map(lambda leaf: leaf[None, None], Lane(params, stats, state))
        for each in batches:
            lanes = programs.steps(tx, False, lanes, each, 0, design.per_epoch)
        accuracy.append(float(programs.accuracy(False, lanes, data)[0, 0]))
        return jax.tree.map(lambda leaf: leaf[0, 0], lanes.params)

    tickets = list(pruning.lottery_tickets(train, initial, sparsity))
    train(tickets[-1].params, tickets[-1].mask, len(tickets) + 1)
    rows = [{"round": 0, "sparsity": 0.0, "ticket": 100 * accuracy[0], "shuffled": float("nan")}]
    for ticket in tickets:
        if ticket.round in watched or ticket is tickets[-1]:
            train(initial, pruning.shuffle_within_layers(ticket.mask, seed), 0)
            row = {"round": ticket.round, "sparsity": ticket.sparsity, "ticket": 100 * accuracy[ticket.round]}
            rows.append(row | {"shuffled": 100 * accuracy[-1]})
    return rows


def mask_changes_of_the_command(seed: int, epochs: int) -> list[float]:
    """Return the share of the support that each compression of ``sparsejax train --method acdc`` replaces.

    The run is that of the command with ``--seed`` and ``--epochs``, and its defaults in all else.
    """
    import pandas as pd

    from sparsejax.train import TrainConfig, TrainRun

    with tempfile.TemporaryDirectory() as folder:
        run = TrainRun(TrainConfig(method="acdc", seed=seed, epochs=epochs), Path(folder) / "run")
        for _ in run.states():
            pass
        return pd.read_csv(run.dir.metrics)["mask_change"].dropna().tolist()


def run_many(
    names: Sequence[str], design: Design, workers: int, keep: str | None = None, **where: Any
) -> dict[str, Run]:
    """Run methods in processes of their own, or on a cluster; ``where`` is ``backend`` and ``address``.

    With a folder ``keep``, runs are stored there, by method and design, and are not computed again.
    """
    from joblib import Memory

    stored = Memory(keep, verbose=0).cache(run)
    dense = replace(design, levels=(0.0,))
    jobs = [(name, dense if name == "dense" else design) for name in names]
    return dict(zip(names, run_jobs("pruning_digits", stored, jobs, n_jobs=workers, **where), strict=True))


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


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=Design.seeds)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    add_backend_options(parser)
    arguments = parser.parse_args()
    where = {"backend": arguments.backend, "address": arguments.address}
    runs = run_many(arguments.methods, Design(seeds=arguments.seeds), arguments.workers, **where)
    print(table(runs))
    if set(arguments.methods) == set(METHODS):
        print(verdicts.table(findings.orderings(runs)).to_string(index=False))


if __name__ == "__main__":
    import pruning_digits  # worker processes need the functions of a module that they can import

    pruning_digits.main()
