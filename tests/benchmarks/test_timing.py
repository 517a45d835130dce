"""Alternation, medians and ratios, on a simulated clock."""

import pytest

from sparsejax_bench.harness import _timing


class Clock:
    """Time that passes only when somebody works or sleeps."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.log.append("sleep")
        self.now += seconds

    def worker(self, name, *durations):
        """A call that takes these times one after another, then the last one always."""
        left = list(durations)

        def call():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return _timing.sampler(call, self)


def test_implementations_are_timed_alternately_after_a_warm_up():
    clock = Clock()
    samplers = {"a": clock.worker("a", 9.0, 0.03), "b": clock.worker("b", 1.0, 0.05)}
    times = _timing.interleave(samplers, 7, clock.sleep)
    assert times["a"] == pytest.approx([0.03] * 7)
    assert times["b"] == pytest.approx([0.05] * 7)
    assert clock.log[:3] == ["a", "b", "b"]  # a call of nine seconds is warm-up enough
    assert clock.log[3:] == ["sleep", "a", "sleep", "b"] * 7


def test_short_calls_are_repeated_until_a_turn_is_long_enough():
    clock = Clock()
    times = _timing.interleave({"a": clock.worker("a", 0.5e-3)}, 7, clock.sleep)
    assert times["a"] == pytest.approx([0.5e-3] * 7)
    sample = ["sleep"] + ["a"] * 5  # one that warms the caches, four that count
    assert clock.log[2:] == sample * 7


def test_too_few_rounds_are_refused():
    with pytest.raises(ValueError, match="--rounds has value 6; expected at least 7"):
        _timing.interleave({}, 6)


def test_a_ratio_is_taken_within_rounds():
    slow_spell = [1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0]
    ratio = _timing.ratio([3 * t for t in slow_spell], slow_spell)
    assert (ratio.low, ratio.median, ratio.high) == (3.0, 3.0, 3.0)
    spread = _timing.ratio([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, 4.0)


def test_the_mean_of_nothing_is_nothing():
    assert _timing.geometric_mean([]) is None
    assert _timing.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
