"""Talking to a worker process."""

import sys

import pytest

from sparsejax_bench.harness import _machine
from sparsejax_bench.harness._child import Child

SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from _child import serve
class Service:
    def fail(self): raise KeyError("gone")
    def leave(self): sys.exit(3)
    def chatter(self):
        print("a library talks")
        return 1
    def add(self, a, b): return a + b
    def sample(self, calls): return 2.0 * calls
serve(Service())
"""


@pytest.fixture
def child():
    process = Child([sys.executable, "-c", SERVER, str(_machine.__file__).rsplit("/", 1)[0]], {})
    yield process
    process.close()


def test_requests_are_answered_in_order(child):
    assert child.ask("add", a=1, b=2) == 3
    assert child.ask("chatter") == 1
    assert child.sampler("sample")(4) == 8.0


def test_errors_come_back_and_the_child_lives_on(child):
    with pytest.raises(RuntimeError, match="KeyError: 'gone'"):
        child.ask("fail")
    assert child.ask("add", a="x", b="y") == "xy"


def test_a_dead_child_is_reported(child):
    with pytest.raises(RuntimeError, match="ended with status 3"):
        child.ask("leave")


def test_pinning_sets_every_library_and_no_other_number(monkeypatch):
    monkeypatch.setenv("NPROC", "64")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    environment = _machine.pinned_environment(2)
    assert "NPROC" not in environment
    assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"2"}


def test_more_threads_than_processors_are_refused(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_BENCH_PINNED", "2")
    monkeypatch.setattr(_machine.os, "sched_getaffinity", lambda pid: {5})
    monkeypatch.setattr(_machine.os, "sched_setaffinity", lambda pid, cpus: pytest.fail("pinned"))
    with pytest.raises(ValueError, match="--threads has value 2; expected at most 1"):
        _machine.pin()


def test_the_first_processors_are_used(monkeypatch):
    pinned = []
    monkeypatch.setenv("SPARSEJAX_BENCH_PINNED", "2")
    monkeypatch.setattr(_machine.os, "sched_getaffinity", lambda pid: {7, 3, 5})
    monkeypatch.setattr(_machine.os, "sched_setaffinity", lambda pid, cpus: pinned.append(cpus))
    assert _machine.pin() == 2 and pinned == [[3, 5]]
