"""The small study of pruning methods: its design, and the orderings that the literature reports."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sparsejax import pruning

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import noisy_digits as task
import pruning_digits as study
import pruning_findings as findings
import verdicts

SPARSE = [name for name in study.METHODS if name != "dense"]


def test_the_network_and_the_phases():
    design = study.Design()
    assert design.weights == 10_696
    starts = [(phase.kind, phase.start // design.per_epoch) for phase in design.phases()]
    dense, sparse = (0, 16, 32, 48, 60), (8, 24, 40, 56, 68)
    assert starts == sorted([("dense", a) for a in dense] + [("sparse", a) for a in sparse], key=lambda each: each[1])
    ratio = design.phases(learning_rate=0.2, momentum=0.9, weight_decay=2e-3).decay_ratio
    assert ratio == pytest.approx(0.64)


@pytest.mark.parametrize("name", SPARSE)
def test_masks_change_at_the_ends_of_epochs_only(name):
    design = study.Design()
    method = study.METHODS[name].make(design, 0.95, 0)
    fires = [step for step in range(1, design.steps + 1) if method.refresh(step)]
    assert all(step % design.per_epoch == 0 for step in fires)
    updates = {"AC/DC": 9, "GMP": 53, "one-shot": 1, "RigL": 59, "SET": 59, "Top-KAST": 80, "static": 0, "SNIP": 0}
    assert len(fires) == updates[name]


def test_every_seed_and_epoch_draws_its_own_training_images():
    design = study.Design(seeds=2)
    data = task.make_data(design)
    assert data.train.shape == (9, 1280, 8, 8, 1) and data.test.shape == (2068, 8, 8, 1)
    (first, labels), (again, _), (other, _) = (task.epoch_batches(design, epoch, data) for epoch in (0, 0, 1))
    assert first.shape == (2, 20, 64, 8, 8, 1) and (np.sort(labels.reshape(2, -1)) == np.sort(data.labels)).all()
    assert (first == again).all() and not (first == other).all() and not (first[0] == first[1]).all()


def test_a_folder_of_idx_files_takes_the_place_of_the_digits(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    header = bytes([0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28])
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10, *range(10)]))
    design = study.Design(source=str(tmp_path), train_images=8, side=16)
    data = task.make_data(design)
    assert data.train.shape == (9, 8, 16, 16, 1) and data.labels.tolist() == list(range(8))
    unshifted = data.train[task.SHIFTS.index((0, 0)), :, 1:15, 1:15, 0]  # inside the margin: 2 x 2 means
    assert np.allclose(unshifted, images[:8].reshape(8, 14, 2, 14, 2).mean((2, 4)) / 255, atol=1e-6)
    assert data.test_labels.tolist() == [8, 9] * task.TEST_DRAWS


def made_up(accuracy, lost=()):
    """A run with the given accuracies at 90, 95 and 98 %, and a tenth of a point between its three seeds."""
    design = study.Design(seeds=3)
    kept = np.array([[1070] * 3, [535] * 3, [214] * 3])
    changes = [(i, pruning.Overlap(1 - x, np.full((3, 3), x), x, x)) for i, x in enumerate(lost)]
    each = np.array(accuracy)[:, None] + 0.001 * np.arange(3)
    return study.Run(design, each, kept, each[None], {}, changes, kept, 0.0)


def by_finding(numbers):
    return verdicts.overall(verdicts.table(numbers))


def test_findings_are_decided_by_the_numbers():
    runs = {
        "dense": made_up((0.88,)),
        "AC/DC": made_up((0.875, 0.872, 0.871)),
        "GMP": made_up((0.87, 0.875, 0.861)),
        "RigL": made_up((0.82, 0.73, 0.53)),
        "SET": made_up((0.82, 0.72, 0.35)),
        "static": made_up((0.76, 0.52, 0.15)),
    }
    assert by_finding(findings.orderings(runs)) == {
        "AC/DC is no more than 1 point below GMP": "shows",
        "AC/DC is above GMP": "unclear",
        "AC/DC is more than 3 points above RigL": "shows",
        "GMP is more than 3 points above RigL": "shows",
        "RigL is more than 3 points above static": "shows",
        "RigL is no more than 1 point below SET": "shows",
        "RigL is above SET": "unclear",
        "AC/DC is no more than 1 point below dense": "shows",
    }
    (first, *_) = findings.ordering(runs, "AC/DC", "GMP", 0.0, where="MNIST: ")
    assert first == ("MNIST: AC/DC is above GMP", "90 %", (0.5, 0.5, 0.5), 0.0)


def test_findings_on_masks_tickets_and_times():
    usual, short = made_up((0.87, 0.84, 0.74), (0.4, 0.2, 0.02)), made_up((0.80, 0.8, 0.7), (0.1, 0.3))
    trapped = {"AC/DC": short, "GMP": made_up((0.82, 0.82, 0.72))}
    assert set(by_finding(findings.of_short_phases(usual, trapped)).values()) == {"shows"}
    (moved,) = findings.of_command(0.9, [[0.4, 0.02], [0.5, 0.005]])
    assert moved.at == "90 %" and moved.values == (0.02, 0.005) and moved.margin == 0.01
    rows = [[{"sparsity": s, "ticket": 80 + seed, "shuffled": 70.0} for s in (0.0, 0.672, 0.98)] for seed in (0, 1)]
    assert [(each.at, each.values) for each in findings.of_tickets(rows)] == [("67.2 %", (10, 11)), ("98 %", (10, 11))]
    slower = findings.of_times([0.9], {"XLA": np.array([[0.8, 0.81]])})
    assert list(by_finding(slower).values()) == ["does not show"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
# joblib takes the memory of compiled programs for a leak, starts a new worker and says so in a thread of its own:
# as an error there it would end that thread, and the study would wait for ever.
@pytest.mark.filterwarnings("ignore:A worker stopped")
def test_the_orderings_of_the_literature():
    runs = study.run_many(list(study.METHODS), study.Design(), workers=2)
    print(study.table(runs))
    rows = verdicts.table(findings.orderings(runs) + findings.of_acdc(runs["AC/DC"], runs["dense"]))
    print(rows.to_string())
    found = verdicts.overall(rows)
    for finding in (
        "AC/DC is no more than 1 point below GMP",
        "AC/DC is more than 3 points above RigL",
        "GMP is more than 3 points above RigL",
        "RigL is more than 3 points above static",
        "each compression of AC/DC replaces less of the support than the one before (smallest fall)",
        "the last compression of AC/DC replaces less than 6 % of the support (share, sign reversed)",
    ):
        assert found[finding] == "shows", finding
    means = rows.set_index(["at", "finding"])["mean"]
    assert means["98 %", "AC/DC is above GMP"] > 0 and means["98 %", "RigL is above SET"] > 10
    assert means["95 %", "RigL is no more than 1 point below SET"] > -1
    for name, each in runs.items():
        promised = [pruning.allocation.global_count(level, [each.design.weights]) for level in each.design.levels]
        assert (each.kept == np.array(promised)[:, None]).all(), name


@pytest.mark.slow
def test_a_short_run_keeps_the_order():
    design = study.Design(levels=(0.95,), seeds=1, epochs=40, warmup=4, phase=4, last_dense=4, final_sparse=6)
    runs = {name: study.run(name, design) for name in ("static", "RigL", "GMP", "AC/DC")}
    accuracy = {name: each.accuracy.mean() for name, each in runs.items()}
    assert min(accuracy["AC/DC"], accuracy["GMP"]) > accuracy["RigL"] > accuracy["static"]
    for each in runs.values():
        assert (each.kept == pruning.allocation.global_count(0.95, [design.weights])).all()
        assert (each.final_nonzero <= each.kept).all()
    lost = runs["AC/DC"].lost()[:, 0, 0]
    assert (np.diff(lost) < 0).all()
