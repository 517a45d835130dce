"""``sparsejax train`` on several processes ends as on one; what does not belong together is refused and named."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from helpers import joined_run
from helpers.process_runs import finished, kill_one, losses, masks, same_masks, start_train, train
from helpers.processes import environment
from sparsejax.cli import main
from sparsejax.data import ImageTask, digits
from sparsejax.models import ConvNet
from sparsejax.train import TrainConfig
from sparsejax.train._inputs import TaskInputs
from sparsejax.train._steps import StepKind, loss_of_kind
from sparsejax.train.processes._command import run_in_processes
from sparsejax.train.processes._group import ALONE, Group
from sparsejax.train.processes._inputs import GroupInputs
from sparsejax.train.processes._launch import _wait, core_shares, free_port
from sparsejax.train.processes._meeting import address_of, meet
from sparsejax.train.processes._step import bind_group_step

SMALL = ["--model", "mlp", "--method", "rigl", "--update-every", "2", "--epochs", "1", "--batch-size", "256"]


class Told(Group):
    """A group of two whose other process says what a test wants; None is what this one says."""

    def __init__(self, other: str | None = None) -> None:
        mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
        super().__init__(0, 2, mesh)
        self.other = other

    def exchange(self, text: str) -> list[str]:
        return [text, text if self.other is None else self.other]


def address() -> str:
    return f"127.0.0.1:{free_port()}"


def test_two_processes_end_as_one() -> None:
    """Digits, RigL: the masks of one process, and its losses to rounding."""
    script, where = str(Path(joined_run.__file__)), address()
    started = [
        subprocess.Popen([sys.executable, script, where, str(i)], env=environment(), stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    one = joined_run.trained()
    ends = [json.loads(process.communicate(timeout=300)[0]) for process in started]
    assert ends[0] == ends[1] and one["layers"] == 2 and ends[0]["masks"] == one["masks"]
    np.testing.assert_allclose(ends[0]["losses"], one["losses"], atol=1e-5)


def test_a_process_that_does_not_arrive_is_named_in_time() -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no process 1, 2 after 0.2 s; expected all processes. .*--join-timeout"):
        meet(address(), 0, 3, 0.2)
    with pytest.raises(TimeoutError, match=r"no process 0 after 0.2 s"):
        meet(address(), 1, 2, 0.2)
    assert time.monotonic() - begin < 3


def test_processes_meet_though_strangers_call() -> None:
    where = address()
    thread = threading.Thread(target=meet, args=(where, 0, 2, 20.0))
    thread.start()
    for _ in range(100):
        try:
            with socket.create_connection(address_of(where), timeout=1) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                break
        except OSError:
            time.sleep(0.02)
    meet(where, 1, 2, 20.0)
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("index", "count", "said"), [(1, 3, "number 1 of 3"), (2, 2, "number 2 of 2")])
def test_a_process_of_another_group_is_refused_on_both_sides(index: int, count: int, said: str) -> None:
    where, problems = address(), []

    def first() -> None:
        try:
            meet(where, 0, 2, 20.0)
        except ValueError as error:
            problems.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    with pytest.raises(ValueError, match=f"process has {said}, as a process says; expected each of 0 to 1 once, of 2"):
        meet(where, index, count, 20.0)
    thread.join(10)
    assert said in problems[0]


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=r"coordinator has port \d+, which cannot be opened \(.*\); expected a free"):
            meet(where, 0, 2, 5.0)


def test_a_difference_between_processes_is_named() -> None:
    mine = {"learning_rate": 0.1, "seed": 0}
    with pytest.raises(ValueError, match=r"argument seed has 1 in process 1; expected 0, as in process 0"):
        Told(json.dumps(mine | {"seed": 1})).same("argument", mine)
    with pytest.raises(ValueError, match=r"version of jax has '0.9' in process 1"):
        Told('{"jax": "0.9"}').same("version of", {"jax": "0.10"})
    masks = {"layers/0": np.array([True, False])}
    with pytest.raises(RuntimeError, match=r"mask of layer layers/0 has .* It was chosen in step 7"):
        Told(json.dumps({"layers/0": "0"})).same_masks(7, masks)
    Told().same_masks(7, masks)


def test_the_rows_and_the_test_are_divided() -> None:
    task = ImageTask.from_dataset(digits())
    config = TrainConfig(batch_size=6)
    whole = next(TaskInputs(task, config).batches(3, 4))
    groups = [Told(), Told()]
    groups[1].index = 1
    parts = [next(GroupInputs(TaskInputs(task, config), group).batches(3, 4)) for group in groups]
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), whole[i])
    with pytest.raises(ValueError, match=r"batch_size has value 7; expected a multiple of 2, the devices of 2"):
        GroupInputs(TaskInputs(task, TrainConfig(batch_size=7)), groups[0])


@pytest.mark.parametrize("sync", [False, True], ids=["per shard", "whole batch"])
def test_batch_norm_of_a_step(sync: bool) -> None:
    """Running statistics are the mean over two devices of those of their rows, or those of the whole batch."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 4, 4, 1)).astype(np.float32)
    labels = np.arange(8, dtype=np.int32) % 3

    def model() -> ConvNet:
        return ConvNet(3, in_features=1, widths=(4,), rngs=nnx.Rngs(0))

    def statistics(model: ConvNet) -> np.ndarray:
        return np.concatenate([model.bns[0].mean[...], model.bns[0].var[...]])

    trained = model()
    optimizer = nnx.Optimizer(trained, optax.sgd(0.1), wrt=nnx.Param)
    step = bind_group_step(Told(), trained, optimizer, StepKind(), is_stored=False, sync_batch_norm=sync)
    loss = float(step(images, labels))
    parts = [slice(0, 8)] if sync else [slice(0, 4), slice(4, 8)]
    expected, losses = [], []
    for rows in parts:
        other = model()
        losses.append(float(loss_of_kind(other, images[rows], labels[rows], StepKind())))
        expected.append(statistics(other))
    np.testing.assert_allclose(statistics(trained), np.mean(expected, 0), rtol=1e-5)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert np.abs(trained.fc.kernel[...] - model().fc.kernel[...]).max() > 0


def test_alone_nothing_is_exchanged() -> None:
    arrays = {"a": np.arange(3, dtype=np.int32), "empty": np.zeros((0, 2), np.float32)}
    got = ALONE.broadcast(arrays)
    assert all(np.array_equal(got[name], arrays[name]) and got[name].dtype == arrays[name].dtype for name in arrays)
    assert ALONE.of_first(lambda: [1, None]) == [1, None] and ALONE.sum(3) == [3] and ALONE.writes


def test_cores_are_divided() -> None:
    cores = sorted(os.sched_getaffinity(0))
    assert [core for share in core_shares(len(cores)) for core in share] == cores
    with pytest.raises(
        ValueError, match=rf"processes has value {len(cores) + 1}; expected 1 to {len(cores)}, the cores"
    ):
        core_shares(len(cores) + 1)


def test_a_lost_process_is_told_in_one_line() -> None:
    group = Told()
    with pytest.raises(ConnectionError, match=r"the group of processes has fewer than 2 members"), group.watching():
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    assert group.has_lost
    with pytest.raises(ValueError, match="another"), group.watching():
        raise ValueError("another")


def test_the_first_cause_is_reported() -> None:
    """A process that is killed, one that fails, one that ends because of that, and one that JAX aborts."""
    ends = {"-9": "import os; os.kill(os.getpid(), 9)", "2": "import sys; sys.exit('error: train: why')"}
    ends |= {"3": "import sys; sys.exit(3)", "-6": "import os; os.abort()"}
    for statuses, cause, said in (
        (["3", "-9"], 137, "process 1 was ended by SIGKILL"),
        (["3", "2"], 1, "process 1 ended with status 1: train: why"),
        (["-6", "3"], 3, "process 1 ended with status 3"),
        (["2", "3"], 1, ""),
    ):
        with tempfile.TemporaryFile() as errors:
            running = [subprocess.Popen([sys.executable, "-c", ends[status]], stderr=errors) for status in statuses]
            for process in running:
                process.wait(60)
            told: list[str] = []
            assert _wait(running, [errors], lambda error, told=told: told.append(str(error)) or 2) == cause
        assert said in "".join(told)


def test_a_process_ends_though_nobody_reads_its_error(monkeypatch) -> None:
    """JAX's exit would wait for the others."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)

    def refused(error: BaseException) -> int:
        raise BrokenPipeError from error

    options = argparse.Namespace(
        coordinator="nowhere", processes=1, process_id=None, process_count=None, join_timeout=1.0
    )
    with pytest.raises(BrokenPipeError):
        run_in_processes(options, lambda _: {}, lambda *_: 0, refused)
    assert ended == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "0"], "processes has value 0"),
        (["--processes", "9999"], "processes has value 9999; expected 1 to"),
        (["--process-id", "1"], "coordinator has no value"),
        (["--coordinator", "nowhere"], "coordinator has value 'nowhere'"),
        (["--coordinator", "localhost:1", "--processes", "2"], "processes has value 2 with --coordinator"),
        (["--join-timeout", "0"], "join-timeout has value 0.0"),
        (["--coordinator", "localhost:1", "--process-id", "2", "--process-count", "2"], "has values 2 and 2"),
    ],
)
def test_options_that_make_no_sense(words, said, tmp_path, capsys, monkeypatch) -> None:
    def leave(status: int) -> Any:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    try:
        status = main(["train", *SMALL, "--out", str(tmp_path), *words])
    except SystemExit as error:
        status = error.code
    assert status == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_is_not_there(tmp_path) -> None:
    """In a process of its own: JAX looks for a cluster before its first computation."""
    process = start_train(tmp_path, *SMALL, "--coordinator", "auto")
    printed, errors = finished(process, 200)
    assert process.returncode == 2 and printed == "", errors
    assert re.fullmatch(
        r"error: train: coordinator has value 'auto' \(.*\); expected a cluster that JAX recognizes \(Slurm, Open MPI, "
        r"Kubernetes\)\. Else give HOST:PORT, --process-id, --process-count\.\n",
        errors,
    ), errors
    assert not list(tmp_path.iterdir())


MNIST = ["--batch-size", "200", "--epochs", "2", "--sparsity", "0.9", "--checkpoint-every", "10"]
RUNS = {
    "acdc": [*MNIST, "--model", "mlp", "--method", "acdc"],
    "rigl": [*MNIST, "--model", "mlp", "--method", "rigl", "--update-every", "10"],
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, shared_data):
    """Folders of runs in one process, made when they are asked for."""
    made = {}

    def folder(name: str):
        if name not in made:
            words = [*RUNS[name], "--data", f"idx:{shared_data / 'mnist10k'}"]
            made[name] = train(tmp_path_factory.mktemp("one"), *words, timeout=900)
        return made[name]

    return folder


@pytest.mark.slow
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("name", RUNS)
def test_mnist_on_two_processes_ends_as_on_one(name, uninterrupted, tmp_path, shared_data) -> None:
    data = ["--data", f"idx:{shared_data / 'mnist10k'}"]
    two = train(tmp_path, *RUNS[name], *data, "--processes", "2", timeout=900)
    one = uninterrupted(name)
    assert np.abs(losses(two) - losses(one))[:50].max() < 1e-4
    assert same_masks(one, two)


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_batch_norm_on_two_processes_is_equal_until_rounding_grows(tmp_path, shared_data) -> None:
    """Losses after 50 steps of AC/DC: 5e-4 apart, as those of one process with one thread and with two."""
    words = [*MNIST, "--model", "convnet", "--method", "acdc", "--data", f"idx:{shared_data / 'mnist10k'}"]
    one = train(tmp_path / "one", *words, timeout=900)
    two = train(tmp_path / "two", *words, "--sync-batch-norm", "--processes", "2", timeout=900)
    assert np.abs(losses(two) - losses(one))[:8].max() < 1e-5
    assert np.abs(losses(two) - losses(one))[:50].max() < 2e-3
    for path, mask in masks(one).items():
        assert np.mean(mask != masks(two)[path]) < 0.01, path


@pytest.mark.slow
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_ends_the_run_which_is_resumed(which, uninterrupted, tmp_path, shared_data) -> None:
    """Process 0 dies: resumed on two. Process 1 dies: resumed on one."""
    words = [*RUNS["rigl"], "--data", f"idx:{shared_data / 'mnist10k'}"]
    process = start_train(tmp_path, *words, "--processes", "2")
    pids = kill_one(process, tmp_path, 20, which)
    _, errors = finished(process, 60)
    assert process.returncode == 137 and f"error: train: process {which} was ended by SIGKILL" in errors
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    resumed = train(tmp_path, *words, "--processes", str(2 - which), timeout=900)
    one = uninterrupted("rigl")
    assert same_masks(one, resumed)
    np.testing.assert_allclose(losses(resumed), losses(one), atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_two_processes_train_the_dense_twin_too(tmp_path) -> None:
    """Both runs end as in one process; the folder has both."""
    words = [*SMALL, "--against-dense"]
    one, two = tmp_path / "one", tmp_path / "two"
    train(one, *words)
    process = start_train(two, *words, "--processes", "2")
    printed, errors = finished(process, 800)
    assert process.returncode == 0, errors[-3000:]
    ended = json.loads(printed)
    assert ended["sparse"]["step"] == ended["dense"]["step"] == 5
    assert same_masks(one, two)
    for run in (".", "dense"):
        np.testing.assert_allclose(losses(two / run), losses(one / run), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_different_arguments_are_refused_in_both_processes(tmp_path) -> None:
    joining = ["--coordinator", address(), "--process-count", "2", "--join-timeout", "60"]
    started = [
        start_train(tmp_path, *SMALL, *joining, "--process-id", str(i), "--seed", str(i), "--lr", "0.2")
        for i in range(2)
    ]
    for process in started:
        _, errors = finished(process, 200)
        assert process.returncode == 2
        assert "error: train: argument seed has 1 in process 1; expected 0, as in process 0." in errors


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_names_the_processes(tmp_path, monkeypatch) -> None:
    """Variables as Slurm sets them; JAX finds address and numbers itself."""
    for name, value in {
        "JOB_ID": str(free_port()),
        "STEP_NODELIST": "localhost",
        "NTASKS": "2",
        "LOCALID": "0",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    started = []
    for i in range(2):
        monkeypatch.setenv("SLURM_PROCID", str(i))
        started.append(start_train(tmp_path, *SMALL, "--coordinator", "auto"))
    ends = [finished(process, 200) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    assert json.loads(ends[0][0])["step"] == 5 and ends[1][0] == ""
