"""Peak, roofline and targets."""

import pytest

from sparsejax._native import ffi
from sparsejax_bench.cases._case import Case
from sparsejax_bench.cases._shapes import Shape
from sparsejax_bench.harness import _machine, _peak, _roofline, _targets
from sparsejax_bench.harness._peak import Peak

LEVELS = {"L1": 4e9, "L2": 2e9, "memory": 1e9}
PEAK = Peak("avx2", 1, 1e9, LEVELS, {"L1": 1000, "L2": 10_000})


def test_probes_find_rates_that_a_processor_can_have():
    assert 1e8 < ffi.probe_fma(0.01) < 1e13
    assert 1e8 < ffi.probe_read(16 * 1024, 0.01) < 1e13


def test_multiply_adds_are_not_optimised_away():
    # Vectors of 64 bytes, two fused units, five GHz: no processor of today does more.
    assert ffi.probe_fma(0.02) < 2 * 2 * 16 * 6e9


@pytest.mark.parametrize("arguments", [(0, 0.1), (2**40, 0.1), (1024, 0.0), (1024, 1e9)])
def test_probes_refuse_absurd_arguments(arguments):
    with pytest.raises(ValueError, match="out of range"):
        ffi.probe_read(*arguments)
    with pytest.raises(ValueError, match="seconds has a value out of range"):
        ffi.probe_fma(-1.0)


def test_measure_covers_every_cache_and_memory():
    peak = _peak.measure(1, 0.002)
    assert list(peak.read) == [*_machine.cache_sizes(), "memory"]
    assert peak.capacity == _machine.cache_sizes()
    assert all(rate > 0 for rate in peak.read.values())


def test_levels():
    assert [PEAK.level(size) for size in (1000, 1001, 10_000, 10_001)] == ["L1", "L2", "L2", "memory"]


def test_traffic_counts_every_array_once():
    case = Case(Shape("t", "t", "linear", 2, 5, 3), 0.6)
    assert case.nnz == 6
    activations = 4 * (2 * 5 + 2 * 3)
    assert _roofline.traffic(case, "forward") == activations + 4 * 6 + 4 * (6 + 3 + 1)
    assert _roofline.traffic(case, "input_grad") == activations + 4 * 6 + 4 * (2 * 6 + 5 + 1)
    assert _roofline.traffic(case, "weight_grad") == _roofline.traffic(case, "forward")
    both = activations + 4 * 2 * 5 + 4 * 2 * 6 + 4 * (2 * 6 + 5 + 1)  # the input's gradient and the values' besides
    assert _roofline.traffic(case, "backward") == both


def test_arithmetic_or_bandwidth_binds():
    case = Case(Shape("t", "t", "linear", 2, 5, 3), 0.6)
    slow = _roofline.limit(case, "forward", 1e-6, PEAK)
    size = _roofline.traffic(case, "forward")
    assert slow.limit == slow.resident == "L1" and slow.limit_fraction == pytest.approx(size / 4e9 / 1e-6)
    assert slow.peak_fraction == pytest.approx(2 * 6 * 2 / 1e9 / 1e-6)
    assert _roofline.limit(case, "backward", 1e-6, PEAK).peak_fraction == pytest.approx(2 * slow.peak_fraction)
    busy = _roofline.limit(case, "forward", 1e-6, Peak("avx2", 1, 1e8, LEVELS, PEAK.capacity))
    assert busy.limit == "fma" and busy.limit_fraction == busy.peak_fraction


def test_caches_of_a_thread_and_caches_of_all(monkeypatch):
    monkeypatch.setattr(_peak, "cache_sizes", lambda: {"L1": 1024, "L2": 4096})
    peak = _peak.measure(2, 0.002)
    assert peak.capacity == {"L1": 2048, "L2": 4096} and peak.threads == 2


@pytest.mark.parametrize(
    ("key", "measured", "verdict"),
    [
        ("dense 90", 2.9, "NOT MET"),
        ("dense 90", 3.0, "met"),
        ("dense 90", 7.0, "aim met"),
        ("dense 90", None, "not measured"),
        ("overhead", 31.0, "NOT MET"),
        ("overhead", 9.0, "aim met"),
        ("crossover", 76.0, "NOT MET"),
        ("sparseprop worst", 1.5, "met"),
    ],
)
def test_verdicts(key, measured, verdict):
    found = _targets.outcome(key, measured, "something")
    assert found.verdict == verdict
    assert verdict in _targets.outcome_table([found])
