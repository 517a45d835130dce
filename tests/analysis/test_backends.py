"""Studies on loky, Dask and Ray give the tables of a serial run, also when a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from sparsejax.analysis import multisource as ms
from sparsejax.analysis._parallel import run_jobs
from sparsejax.analysis.transfer import Backbone, StudySettings, run_transfer
from sparsejax.data import ArrayImageSplit, ImageTask
from sparsejax.models import MLP

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import bias_digits
import pruning_digits

# Of JAX, about the fork with which Ray starts its daemons.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
EXAMPLES = str(Path(bias_digits.__file__).parent)
NAMES = "alone", "found"
BACKENDS = pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
SOURCES: dict[str, Any] = {
    "adversaries": ["flip#target", "flip#protected"],
    "learners": ["none", "reg"],
    "methods": ["oracle", "naive"],
    "n_sources": 3,
    "n_malicious": 1,
    "seeds": 3,
}


def kills_once(flag: Path) -> Any:
    """A function that kills the process that calls it first, if that is not this one."""
    here, path = os.getpid(), str(flag)

    def die() -> None:
        if os.getpid() == here:
            return
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    return die


def task(die: Any) -> ImageTask:
    """Digits of noise; reading the training images calls ``die``."""
    rng = np.random.default_rng(0)

    class Deadly:  # of this function, so that it is sent to workers by value
        def __init__(self, split: ArrayImageSplit) -> None:
            self.split, self.labels = split, split.labels

        def __len__(self) -> int:
            return len(self.split)

        def fingerprint(self) -> str:
            return self.split.fingerprint()

        def images(self, rows: Any, *, seed: Any = None) -> np.ndarray:
            die()
            return self.split.images(rows, seed=seed)

    labels = np.arange(60, dtype=np.int32) % 3
    images = (rng.normal(0, 0.5, (60, 4, 4, 1)) + labels[:, None, None, None]).astype(np.float32)
    split = ArrayImageSplit(images, labels)
    return ImageTask("noise", Deadly(split), split, 3)


def backbones() -> list[Backbone]:
    networks = [MLP(16, 3, hidden=(width,), rngs=nnx.Rngs(0)) for width in (8, 12, 16)]
    return [Backbone(networks[0]), Backbone(networks[1], "GMP", 0.9), Backbone(networks[2], "AC/DC", 0.9)]


def transfer(out: Path, die: Any = lambda: None, **options: Any) -> pd.DataFrame:
    lbfgs = StudySettings(solver="lbfgs", standardize=True)
    return run_transfer(backbones(), [task(die)], out, regimes=("linear",), seeds=(0, 1), settings=lbfgs, **options)


def table(die: Any = lambda: None) -> ms.TabularDataset:
    rng = np.random.default_rng(0)

    class Deadly(ms.TabularDataset):
        def split(self, *arguments: Any, **options: Any) -> Any:
            die()
            return super().split(*arguments, **options)

    x = rng.normal(size=(300, 3))
    y = (x[:, 0] + rng.normal(0, 0.5, 300) > 0).astype(int)
    return Deadly("toy", x, y, (x[:, 1] > 0).astype(int), 2, ("p", "q", "a"))


@pytest.fixture(autouse=True)
def workers_are_not_nice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts its workers at niceness 15, where they wait for every other process of a busy machine."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> tuple[pd.DataFrame, pd.DataFrame]:
    out = tmp_path_factory.mktemp("serial")
    return transfer(out / "transfer"), ms.run_study(table(), out / "sources", **SOURCES)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@BACKENDS
def test_a_transfer_study_survives_the_death_of_a_worker(backend, serial, tmp_path) -> None:
    out = tmp_path / "out"
    found = transfer(out, kills_once(tmp_path / "killed"), backend=backend, n_jobs=2)
    assert (tmp_path / "killed").exists()
    pd.testing.assert_frame_equal(found, serial[0])
    assert len(list(out.glob("*.json"))) == len(found) == 6


@pytest.mark.slow
@pytest.mark.timeout(1200)
@BACKENDS
def test_a_multisource_study_survives_the_death_of_a_worker(backend, serial, tmp_path) -> None:
    out = tmp_path / "out"
    found = ms.run_study(table(kills_once(tmp_path / "killed")), out, backend=backend, n_jobs=2, **SOURCES)
    assert (tmp_path / "killed").exists()
    pd.testing.assert_frame_equal(found, serial[1])
    assert len(list(out.glob("*.json"))) == 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_clusters_with_an_address(serial, tmp_path) -> None:
    """Clusters that run already, as a user has them; they are left running."""
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        found = transfer(tmp_path / "dask", backend="dask", address=cluster.scheduler_address)
        pd.testing.assert_frame_equal(found, serial[0])
        assert len(cluster.workers) == 2
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = ms.run_study(table(), tmp_path / "ray", backend="ray", address="auto", **SOURCES)
        pd.testing.assert_frame_equal(found, serial[1])
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def pruning_study(**where: Any) -> dict[str, pruning_digits.Run]:
    design = pruning_digits.Design(levels=(0.9,), seeds=2, epochs=2, train_images=128)
    return pruning_digits.run_many(["dense", "one-shot", "static"], design, 2, **where)


def bias_study(keep: Path, **where: Any) -> list[dict[str, Any]]:
    data = bias_digits.make_data()
    jobs = [(bias_digits.train_joint, data, level, 0, 1) for level in (0.0, 0.9)]
    jobs += [(bias_digits.train_single, data, "loop", 0.9, 0, 1)]
    return bias_digits.run_many(jobs, 2, str(keep), **where)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@BACKENDS
def test_the_studies_of_pruning_and_bias_are_those_of_one_process(backend, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([EXAMPLES, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as in this process
    import joblib
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown()  # its workers have the environment of their start
    with joblib.parallel_config("sequential"):
        alone = pruning_study(), bias_study(tmp_path / "alone")
    found = pruning_study(backend=backend), bias_study(tmp_path / "found", backend=backend)
    assert found[0].keys() == alone[0].keys()
    for name, run in alone[0].items():
        for field in ("accuracy", "kept", "curve", "final_nonzero"):
            np.testing.assert_array_equal(getattr(found[0][name], field), getattr(run, field))
    for run, expected in zip(found[1], alone[1], strict=True):
        assert run.keys() == expected.keys()
        for part in expected:
            np.testing.assert_allclose(run[part], expected[part], rtol=1e-5, atol=1e-5)
    # Each job is in the store, under the same key.
    stored = [{path.relative_to(tmp_path / each) for path in (tmp_path / each).rglob("output.pkl")} for each in NAMES]
    assert stored[0] == stored[1] and len(stored[0]) == 3


@pytest.mark.parametrize("study", [bias_digits, pruning_digits])
def test_the_studies_take_a_backend(study, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "--backend", "loky", "--address", "tcp://x"])
    with pytest.raises(ValueError, match=rf"{study.__name__}: address has value 'tcp://x' with backend 'loky'"):
        study.main()


def test_bad_backends_are_refused() -> None:
    with pytest.raises(ValueError, match=r"study: backend has value 'slurm'; expected one of loky, dask, ray"):
        run_jobs("study", pow, [(2, 3)], backend="slurm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"study: address has value 'tcp://x' with backend 'loky'"):
        run_jobs("study", pow, [(2, 3)], backend="loky", address="tcp://x")


def test_an_error_of_a_job_is_raised_and_not_repeated() -> None:
    calls = []

    def work(i: int) -> None:
        calls.append(i)
        raise RuntimeError("of the job")

    with pytest.raises(RuntimeError, match="of the job"):
        run_jobs("study", work, [(0,)])
    assert calls == [0]


def test_jobs_of_a_lost_worker_are_run_again() -> None:
    from concurrent.futures.process import BrokenProcessPool

    calls = []

    def work(i: int) -> int:
        calls.append(i)
        if len(calls) == 2:
            raise BrokenProcessPool
        return i

    assert run_jobs("study", work, [(0,), (1,)]) == [0, 1] and calls == [0, 1, 0, 1]
