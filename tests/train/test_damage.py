"""Damaged checkpoints are never loaded silently: one line, the next older checkpoint, and the reference's bits."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from helpers.small_run import ACDC, StopAfter, Stopped, assert_same_bits, final_arrays, make_model
from sparsejax.train import TrainRun
from sparsejax.train.checkpoints._digests import DamagedCheckpointError


def arrays_of(step: Path) -> Path:
    """The file that has most of a checkpoint's arrays."""
    return max((step / "default").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = {
    "truncated arrays": lambda step: truncate(arrays_of(step)),
    "a truncated manifest": lambda step: truncate(step / "default" / "manifest.ocdbt"),
    "zeroed data": lambda step: arrays_of(step).write_bytes(bytes(arrays_of(step).stat().st_size)),
    "zeroed end": lambda step: arrays_of(step).write_bytes(arrays_of(step).read_bytes()[:-64] + bytes(64)),
    "missing arrays": lambda step: arrays_of(step).unlink(),
    "missing metadata": lambda step: (step / "default" / "_METADATA").unlink(),
    "an empty step folder": lambda step: [shutil.rmtree(step), step.mkdir()],
    "a deleted item": lambda step: shutil.rmtree(step / "default"),
    "no digests": lambda step: (step / "digests.json").unlink(),
    "truncated digests": lambda step: truncate(step / "digests.json"),
    "digests of another kind": lambda step: (step / "digests.json").write_text("[]"),
    "a folder in place of a file": lambda step: replace_by_folder(arrays_of(step)),
    "a checkpoint of another step": lambda step: [shutil.rmtree(step), shutil.copytree(step.parent / "14", step)],
}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """A finished run with checkpoints of steps 14 and 16, and its arrays."""
    run = TrainRun(ACDC, tmp_path_factory.mktemp("run"), dataset=dataset, model=make_model(), checkpoint_every=2)
    run.fit()
    return run, final_arrays(run)


@pytest.fixture
def run(finished, tmp_path):
    """The same run, in a copy of its folder: nothing is compiled again."""
    run, arrays = finished
    folder, kept = run.dir.root, tmp_path / "kept"
    shutil.copytree(folder, kept)
    yield run, arrays
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


def test_the_last_two_checkpoints_are_kept_with_digests(run):
    assert run[0].checkpoints.steps() == [14, 16]
    record = json.loads((run[0].dir.checkpoints / "16" / "digests.json").read_text())
    assert record["step"] == 16 and record["configuration"] == ACDC.to_dict()
    assert {"model/convs/1/kernel/value", "mask/convs/1", "log"} <= record["arrays"].keys()
    step = run[0].dir.checkpoints / "16"
    files = {str(path.relative_to(step)) for path in step.rglob("*") if path.is_file()}
    assert record["files"].keys() == files - {"digests.json"}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_next_older_checkpoint_is_used_with_one_warning(run, kind):
    run, arrays = run
    step = run.dir.checkpoints / "16"
    DAMAGE[kind](step)
    report = StopAfter(0)
    result = run.fit(report)
    warnings = [note for note in report.notes if note.startswith("warning: ")]
    assert len(warnings) == 1 and str(step) in warnings[0] and warnings[0].endswith("Resuming from step 14.")
    assert report.done == 14 and result.step == 16
    assert_same_bits(final_arrays(run), arrays)
    assert (run.dir.checkpoints / "damaged-16").is_dir() and run.checkpoints.steps() == [14, 16]


def test_checkpoints_of_version_0_1_resume_with_a_remark(run):
    """They are those of Orbax's manager, without digests and without the log."""
    import orbax.checkpoint as ocp

    run, arrays = run
    older = {name: array for name, array in run.checkpoints.load(14).items() if name != "log"}
    shutil.rmtree(run.dir.checkpoints)
    with ocp.CheckpointManager(run.dir.checkpoints) as manager:
        manager.save(14, args=ocp.args.StandardSave(older))
    report = StopAfter(0)
    run.fit(report)
    remarks = [note for note in report.notes if note.startswith("warning: ")]
    assert len(remarks) == 1 and remarks[0].endswith("14' has no digests: not verified.") and report.done == 14
    assert_same_bits(final_arrays(run), arrays)
    assert run.checkpoints.steps() == [14, 16]


def test_no_good_checkpoint_is_one_error_and_nothing_is_deleted(run):
    run, _ = run
    for step in (14, 16):
        truncate(arrays_of(run.dir.checkpoints / str(step)))
    before = contents(run.dir.root)
    with pytest.raises(ValueError, match="no checkpoint that can be loaded") as error:
        run.fit()
    assert "\n" not in str(error.value) and "Nothing was deleted" in str(error.value)
    assert contents(run.dir.root) == before


def test_checkpoints_without_a_configuration_are_one_error_and_nothing_is_deleted(run):
    run, _ = run
    (run.dir.root / "run.json").unlink()
    before = contents(run.dir.root)
    with pytest.raises(ValueError, match=r"checkpoints but no run\.json"):
        run.fit()
    assert contents(run.dir.root) == before


def test_a_checkpoint_of_another_configuration_is_damaged(run):
    run, _ = run
    file = run.dir.checkpoints / "16" / "digests.json"
    record = json.loads(file.read_text())
    record["configuration"]["seed"] += 1
    file.write_text(json.dumps(record))
    with pytest.raises(DamagedCheckpointError, match="the configuration is not the recorded one"):
        run.checkpoints.load(16)


@pytest.mark.parametrize("damage", ["truncated", "missing", "another run's"])
def test_a_damaged_log_and_result_are_rebuilt(run, damage):
    run, _ = run
    rows = run.dir.metrics.read_text()
    if damage == "missing":
        run.dir.metrics.unlink()
    else:
        text = rows[: len(rows) // 2] if damage == "truncated" else rows.replace("dense", "prune")
        run.dir.metrics.write_text(text)
    run.dir.result.write_text("{")
    report = StopAfter(0)
    result = run.fit(report)
    assert [note for note in report.notes if "lacked rows; rebuilt" in note]
    assert run.dir.metrics.read_text() == rows
    assert json.loads(run.dir.result.read_text())["training_flops"] == result.training_flops


def test_no_result_is_written_from_rows_that_do_not_add_up(run):
    run, _ = run
    *_, last = run.states()
    lines = run.dir.metrics.read_text().splitlines(keepends=True)
    run.dir.metrics.write_text("".join(lines[:5] + lines[6:]))
    run.dir.result.unlink()
    with pytest.raises(ValueError, match=r"has 15 rows; expected those of 16 steps"):
        run.finish(last)
    assert not run.dir.result.exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".sparsejax.lock")
    }


@pytest.mark.parametrize("flips", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_single_flipped_bits_are_noticed(run, flips):
    """A checkpoint with one bit flipped, in any of its files, is refused or loads as it was."""
    run, arrays = run
    files = sorted(path for path in (run.dir.checkpoints / "16").rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    rng, refused = random.Random(0), 0
    for _ in range(flips):
        (file,) = rng.choices(files, sizes)
        before = file.read_bytes()
        damaged = bytearray(before)
        damaged[rng.randrange(len(before))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            loaded = final_arrays(run)
        except DamagedCheckpointError as error:
            assert str(run.dir.checkpoints / "16") in str(error)
            refused += 1
        else:
            assert_same_bits(loaded, arrays)
        file.write_bytes(before)
    print(f"{flips} flipped bits: {refused} refused, {flips - refused} loaded unchanged, 0 loaded differently")
    assert_same_bits(final_arrays(run), arrays)


def test_a_run_stopped_after_damage_still_resumes(run):
    """The damaged checkpoint is set aside, so the run writes its own of that step."""
    run, arrays = run
    truncate(arrays_of(run.dir.checkpoints / "16"))
    with pytest.raises(Stopped):
        run.fit(StopAfter(15))
    report = StopAfter(0)
    run.fit(report)
    assert report.done == 14 and not [note for note in report.notes if note.startswith("warning")]
    assert_same_bits(final_arrays(run), arrays)
