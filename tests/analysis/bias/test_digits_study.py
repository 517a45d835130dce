"""The small study on digits: its data, a short version in every run, and the trends of the full one when asked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sparsejax.analysis import bias

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))
import bias_digits as study
import verdicts


@pytest.fixture(scope="module")
def data():
    return study.make_data()


def test_no_source_image_is_in_two_splits(data):
    sources = [set(split.sources.tolist()) for split in data.values()]
    assert not (sources[0] & sources[1] or sources[0] & sources[2] or sources[1] & sources[2])
    assert {name: len(split.labels) for name, split in data.items()} == study.SIZES
    for split in data.values():
        assert split.images.shape[1:] == (10, 10, 1) and split.images.min() >= 0 and split.images.max() <= 1.5


def test_images_of_a_folder_take_the_place_of_the_digits(tmp_path):
    rng = np.random.default_rng(0)
    digits = np.arange(60, dtype=np.uint8) % 10
    images = rng.integers(1, 255, (60, 28, 28), dtype=np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", digits)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (tmp_path / f"t10k-{kind}-ubyte").write_bytes(head + array.tobytes())
    found = study.make_data(folder=tmp_path)
    assert {name: split.images.shape for name, split in found.items()} == {
        name: (size, 30, 30, 1) for name, size in study.SIZES.items()
    }
    even = found["test"].labels[:, study.ATTRIBUTES.index("even")]
    assert (even == (digits[found["test"].sources] % 2 == 0)).all()
    few = {name: study.Split(split.images[:200], split.labels[:200], split.sources) for name, split in found.items()}
    run = study.train_joint(few, 0.9, 0, 2)
    assert run["test"].shape == (200, 12) and run["sparsity"] == pytest.approx(0.9, abs=1e-3)


def test_the_groups_are_associated_with_attributes(data):
    labels, slanted = data["train"].labels, data["train"].groups["slanted"] == 1
    rate = {name: labels[:, study.ATTRIBUTES.index(name)] for name in ("eight", "straight", "zero")}
    assert rate["eight"].mean() < 0.13 and rate["zero"].mean() < 0.13
    assert rate["eight"][slanted].mean() > 1.5 * rate["eight"][~slanted].mean()
    assert rate["straight"][slanted].mean() > 2 * rate["straight"][~slanted].mean()


def numbers(report, metric, thresholds="default"):
    rows = report.overall.where(metric=metric, thresholds=thresholds)
    return dict(zip(rows["sparsity"], rows["value"], strict=True))


def test_a_short_run_shows_the_first_trends(data):
    """Ten epochs, two levels, one seed, with bands of their own."""
    runs = {level: [study.train_joint(data, level, 0, 10)] for level in (0.0, 0.98)}
    assert runs[0.98][0]["sparsity"] == pytest.approx(0.98, abs=1e-4)
    report = study.audit(data, runs)
    accuracy, uncertain = numbers(report, "accuracy"), numbers(report, "uncertainty")
    assert accuracy[0.0] > 0.85 and accuracy[0.98] < accuracy[0.0] - 0.03
    assert uncertain[0.98] > uncertain[0.0] + 0.1
    ratio = report.table.where(attribute="eight", metric="rare_value_ratio", sparsity=0.98)
    by_thresholds = dict(zip(ratio["thresholds"], ratio["value"], strict=True))
    assert by_thresholds["default"] < 0.4 and by_thresholds["calibrated"] > 0.6


def test_findings_pair_the_seeds(data):
    """Outputs that are the truth and noise, more of it for the sparse models; numbers are differences of a seed."""
    rng = np.random.default_rng(0)
    few = {name: study.Split(s.images[:1500], s.labels[:1500], s.sources[:1500]) for name, s in data.items()}

    def noisy(level):
        return {name: 2.0 * few[name].labels - 1 + level * rng.normal(size=(1500, 12)) for name in ("val", "test")}

    runs = {0.0: [noisy(0.5 + 0.1 * seed) for seed in range(3)], 0.9: [noisy(1 + 0.1 * seed) for seed in range(3)]}
    found = {each.finding: each for each in study.findings(study.audit(few, runs), few)}
    assert len(found) == 9 and {each.at for each in found.values()} == {"90 %"}
    right = {level: [((run["test"] > 0) == few["test"].labels).mean() for run in each] for level, each in runs.items()}
    accuracy = found["accuracy is no more than 1.5 points below dense"]
    expected = 100 * np.subtract(right[0.9], right[0.0])
    np.testing.assert_allclose(accuracy.values, expected, atol=1e-6)
    assert accuracy.margin == -1.5 and verdicts.verdict(accuracy.values, -1.5) == "does not show"
    bounded, grown = (found[name] for name in found if name.startswith("bias amplification"))
    np.testing.assert_allclose(grown.values, np.negative(bounded.values))
    assert bounded.margin < 0


@pytest.mark.slow
def test_the_full_study_reproduces_the_trends(data):
    levels = (0.0, 0.9, 0.98, 0.99, 0.995)
    found = study.run_many([(study.train_joint, data, level, 0, 60) for level in levels], 2)
    report = study.audit(data, {level: [run] for level, run in zip(levels, found, strict=True)})
    accuracy, uncertain = numbers(report, "accuracy"), numbers(report, "uncertainty")
    assert accuracy[0.9] >= accuracy[0.0] - 0.015
    assert uncertain[0.0] < uncertain[0.9] < uncertain[0.98] < uncertain[0.995]
    ratio = report.table.where(attribute="eight", metric="rare_value_ratio", sparsity=0.99)
    by_thresholds = dict(zip(ratio["thresholds"], ratio["value"], strict=True))
    assert by_thresholds["default"] < 0.6 and by_thresholds["calibrated"] > 0.7
    per_run = numbers(report, "bias_amplification_per_run")
    calibrated = numbers(report, "bias_amplification_per_run", "calibrated")
    assert per_run[0.99] > per_run[0.0] + 0.005 and calibrated[0.99] < per_run[0.99]
    flips = {row["sparsity"]: row for row in report.flips}
    assert flips[0.9]["coverage"] >= 0.95 and flips[0.98]["auc"] >= 0.85
    dependence = numbers(report, "interdependence_prob")
    assert dependence[0.99] > dependence[0.0] + 0.1


@pytest.mark.slow
def test_reliance_on_a_marker_grows(data):
    column = study.ATTRIBUTES.index("loop")
    jobs = [(study.train_marked, data, "loop", (0.05, 0.95), level, 0, 60) for level in (0.0, 0.995)]
    dense, sparse = (
        bias.marker_bias_amplification(
            data["test"].labels[:, column], bias.hard_predictions(run["test"][:, 0]), run["marked"]
        ).value[0]
        for run in study.run_many(jobs, 2)
    )
    assert sparse > dense + 0.05


@pytest.mark.slow
def test_an_audit_of_the_size_of_celeba_is_fast_and_small(tmp_path):
    """100,000 samples, 40 attributes, 4 groups, calibrated thresholds, the page: CPU seconds and bytes."""
    import time

    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, (100_000, 4))
    t = (rng.random((100_000, 40)) < 0.1 + 0.3 * groups[:, :1] * rng.random(40) + 0.4 * rng.random(40)).astype(int)
    dense = 3 * t - 1.5 + rng.normal(size=t.shape)
    sparse = dense + 0.7 * rng.normal(size=t.shape)
    val = {"dense": dense[:20_000], "sparse": {0.9: sparse[:20_000]}, "labels": t[:20_000]}
    images = rng.integers(0, 256, (100_000, 16, 16, 3), dtype=np.uint8)
    start = time.process_time()
    report = bias.compare(dense, {0.9: sparse}, t, groups, train_labels=t, train_groups=groups, val=val, images=images)
    report.to_html(tmp_path / "big.html")
    seconds = time.process_time() - start
    size = (tmp_path / "big.html").stat().st_size
    print(f"{seconds:.1f} s of CPU time, {size / 1e6:.1f} MB")
    assert seconds < 30 and size < 20_000_000
