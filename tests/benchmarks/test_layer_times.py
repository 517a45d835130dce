"""Every installed implementation is right, and a wrong, failing or absent one is reported as such."""

import dataclasses

import pytest

from sparsejax_bench import _layer_times, peers
from sparsejax_bench.cases._case import FORWARD, RESULTS, STEP, TOLERANCE, Case
from sparsejax_bench.cases._shapes import Shape
from sparsejax_bench.peers import Call, Peer, Variant, sparseprop
from sparsejax_bench.peers._peer import missing

TINY = [
    Shape("t", "linear", "linear", 24, 20, 12),
    Shape("t", "conv", "conv", 8, 5, 6, 7, 6, 3, 3, 1, 1, 1),
    Shape("t", "strided", "conv", 8, 5, 6, 9, 9, 3, 3, 2, 1, 1),
    Shape("t", "conv1d", "conv1d", 3, 4, 5, 1, 11, 1, 3, 2, 0, 1),
]


@pytest.mark.parametrize("shape", TINY, ids=lambda shape: shape.name)
@pytest.mark.parametrize("peer", [peers.OURS, peers.OURS_BFLOAT16, *peers.PEERS.values()], ids=lambda peer: peer.name)
def test_every_implementation_computes_the_layer(peer, shape):
    case = Case(shape, 0.6)
    reason = peer.absent() or peer.unsupported(case)
    if reason:
        pytest.skip(reason)
    variants = peer.prepare(case)
    assert variants
    for variant in variants:
        for measure, call in variant.calls.items():
            results = call.read(call.run())
            assert tuple(sorted(results)) == tuple(sorted(RESULTS[measure]))
            assert case.error(results) < peer.tolerance / (1 if peer.tolerance > TOLERANCE else 100), (
                variant.name,
                measure,
            )


def fake(name, outcome, variants=("only",), seconds=0.01):
    """An implementation that returns what ``outcome(case)`` gives, and says how long that took."""

    def prepare(case):
        call = Call(lambda: outcome(case), lambda results: results, sample=lambda calls: calls * seconds)
        return [Variant(variant, {FORWARD: call}) for variant in variants]

    return Peer(name, lambda: None, lambda case: None, prepare)


def right(case):
    return {"y": case.expected["y"]}


def wrong(case):
    y = case.expected["y"].copy()
    y.flat[3] += 1
    return {"y": y}


def failing(case):
    raise RuntimeError("no such kernel")


def test_only_right_results_are_timed(monkeypatch):
    monkeypatch.setattr(_layer_times._timing, "PAUSE", 0.0)
    ours = fake("sparsejax", right, variants=("between", "alone"), seconds=0.002)
    monkeypatch.setattr(_layer_times, "OURS", ours)
    absent = Peer("gone", lambda: "not installed", lambda case: None, lambda case: pytest.fail("prepared"))
    picky = Peer("picky", lambda: None, lambda case: "odd sizes", lambda case: pytest.fail("prepared"))
    broken = Peer("broken", lambda: None, lambda case: None, failing)
    others = [fake("good", right), fake("bad", wrong), fake("worse", failing), absent, picky, broken]
    result = _layer_times.run(Case(TINY[0], 0.5), others, (FORWARD,), 7)
    assert result.times[FORWARD].keys() == {"sparsejax", "alone", "good"}
    assert result.ratio(FORWARD, "good") == pytest.approx(5.0)
    assert result.ratio(FORWARD, "bad") is None
    assert result.status["good"] == result.status["sparsejax"] == "ok"
    assert result.status["bad"].startswith("wrong: error")
    assert result.status["worse"].startswith("failed: RuntimeError: no such kernel")
    assert result.status["broken"] == "failed: RuntimeError: no such kernel"
    assert (result.status["gone"], result.status["picky"]) == ("absent: not installed", "unsupported: odd sizes")


def test_the_faster_variant_and_the_fastest_peer_count(monkeypatch):
    monkeypatch.setattr(_layer_times._timing, "PAUSE", 0.0)
    monkeypatch.setattr(_layer_times, "OURS", fake("sparsejax", right, variants=("between",), seconds=0.002))
    slow, fast = fake("two", right, ("slow",), 0.008), fake("two", right, ("fast",), 0.006)
    both = dataclasses.replace(slow, prepare=lambda case: slow.prepare(case) + fast.prepare(case))
    result = _layer_times.run(Case(TINY[0], 0.5), [both, fake("one", right, seconds=0.01)], (FORWARD,), 7)
    assert result.times[FORWARD]["two"].variant == "fast"
    assert result.ratio(FORWARD, "one", "two") == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch": 9, "stride": 2}, "batch not a multiple of 8"),
        ({"stride": 3}, "strides 1 and 2"),
        ({"window_w": 2}, "square windows"),
        ({"pad_w": 0}, "square windows"),
        ({"batch": 9}, None),
        ({"batch": 16, "stride": 2}, None),
    ],
)
def test_sparseprop_is_not_run_where_it_is_known_to_be_wrong(changes, reason):
    case = Case(dataclasses.replace(TINY[1], **changes), 0.5)
    found = sparseprop.PEER.unsupported(case)
    assert found is None if reason is None else reason in found


def test_names_of_peers_are_checked():
    assert [peer.name for peer in peers.choose(["torch", "xla"])] == ["torch", "xla"]
    assert len(peers.choose([])) == len(peers.PEERS)
    with pytest.raises(ValueError, match="--peers has value 'tensorflow'; expected names among xla, torch"):
        peers.choose(["tensorflow"])


def test_a_missing_module_is_named_with_the_way_to_install_it():
    assert missing("json", "never") is None
    assert missing("no_such_module_at_all", "pip install it") == (
        "No module named 'no_such_module_at_all' (to install: pip install it)"
    )


def test_our_layer_between_others_moves_no_activation():
    """The operands' formats are the kernels': no copy, no transposition in the compiled step."""
    import jax
    import jax.numpy as jnp

    import sparsejax as sx
    from sparsejax.kernels import BATCH_MINOR
    from sparsejax_bench.peers import ours

    case = Case(Shape("t", "t", "conv", 16, 8, 8, 6, 6, 3, 3, 1, 1, 1), 0.5)
    form = ours.memory_format(4, batch_minor=True)
    pattern = sx.SparsityPattern.from_mask(case.mask)
    step = jax.jit(ours.with_gradients(ours.layer(case, BATCH_MINOR)), out_shardings=(form, form, None))
    x, cotangent = jax.device_put(case.x, form), jax.device_put(case.cotangent, form)
    text = step.lower(pattern.gather(jnp.asarray(case.kernel)), pattern, x, cotangent).compile().as_text()
    moved = [line for line in text.splitlines() if " copy(" in line or " transpose(" in line or " fusion(" in line]
    assert STEP in peers.OURS.prepare(case)[0].calls and moved == []
