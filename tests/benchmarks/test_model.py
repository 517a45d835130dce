"""Whole networks: the implementations train the same one, and the reports say what was measured."""

import json

import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sx
from sparsejax_bench import _breakdown, _cli, _network_memory, model
from sparsejax_bench.cases import _network
from sparsejax_bench.cases._network import NetworkCase, NetworkPeer, Trainer
from sparsejax_bench.peers import networks, resnet_torch

CASE = NetworkCase(16, 8, 0.9)


def first_step(trainer):
    return trainer.step(), CASE.masked(trainer.gradients())


def test_masks_leave_out_the_first_convolution_and_are_uniform():
    assert "conv1" not in CASE.masks and len(CASE.masks) == 19
    assert {round(float(mask.mean()), 2) for mask in CASE.masks.values()} == {0.1}


def test_pytorch_and_sparseprop_train_our_network():
    pytest.importorskip("torch")
    ours = first_step(networks.OURS.variants(CASE)["sparsify"]())
    for peer in (resnet_torch.DENSE, resnet_torch.SPARSEPROP):
        if reason := peer.absent():
            print(f"{peer.name} is absent: {reason}")
            continue
        for variant, build in peer.variants(CASE).items():
            theirs = first_step(build())
            assert _network.difference(ours, theirs) < _network.TOLERANCE, (peer.name, variant)
    wrong = {path: g.copy() for path, g in ours[1].items()}
    wrong["layer3/0/downsample/0/kernel"] *= 1.05
    assert _network.difference(ours, (ours[0], wrong)) > _network.TOLERANCE


def test_sparseprop_is_refused_where_it_is_wrong():
    assert "multiple of 8" in (networks.PEERS["sparseprop"].unsupported(NetworkCase(16, 9, 0.9)) or "")
    small, large = (set(resnet_torch.SPARSEPROP.variants(NetworkCase(size, 8, 0.9))) for size in (16, 64))
    assert small == {"over batch", "over rows"} and large == {"over batch", "over rows", "by size"}


def trainer(gradient):
    return Trainer(lambda: 1.0, lambda: {"conv1/kernel": np.array(gradient)})


def peer(name, absent=None, **gradients):
    return NetworkPeer(
        name,
        lambda: absent,
        lambda case: None,
        lambda case: {v: (lambda g=g: trainer(g)) for v, g in gradients.items()},
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(model._timing, "PAUSE", 0.0)
    monkeypatch.setattr(model._timing, "SHORTEST_SAMPLE", 1e-5)
    monkeypatch.setattr(networks, "DENSE", peer("xla", flax=[1.0, 2.0]))
    monkeypatch.setattr(networks, "OURS", peer("sparsejax", sparsify=[1.0, 2.001]))
    others = (networks.DENSE, peer("torch", good=[1.0, 2.0], bad=[1.0, 3.0]), peer("sparseprop", absent="not here"))
    monkeypatch.setattr(networks, "PEERS", {p.name: p for p in others})


def test_model_times_right_variants_only(quick, capsys):
    assert _cli.run_pinned(["model", "--image", "16", "--batch", "8", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    row = found["rows"][0]
    assert [(t["name"], t["variant"]) for t in row["timed"]] == [
        ("sparsejax", "sparsify"),
        ("xla", "flax"),
        ("torch", "good"),
    ]
    assert row["status"]["torch"].startswith("wrong: error") and row["status"]["sparseprop"] == "absent: not here"
    assert [entry["verdict"] for entry in found["summary"]][-1] == "not measured"
    assert _cli.run_pinned(["model", "--image", "16", "--batch", "8"]) == 0
    assert "sparsejax, sparsify" in capsys.readouterr().out


def test_a_wrong_step_of_ours_is_an_error(quick, monkeypatch):
    monkeypatch.setattr(networks, "OURS", peer("sparsejax", sparsify=[1.0, 5.0]))
    with pytest.raises(RuntimeError, match="model: sparsejax is wrong"):
        model.measure(CASE, [], 7)


def test_peers_of_models_are_checked():
    with pytest.raises(ValueError, match="--peers has value 'mkl'; expected names among xla, torch, sparseprop"):
        networks.choose(["mkl"])


def test_memory_sees_what_a_step_touches(quick, monkeypatch):
    size = 256 * 2**20

    def build():
        return Trainer(lambda: float(np.ones(size, np.uint8)[-1]), dict)

    hungry = NetworkPeer("sparsejax", lambda: None, lambda case: None, lambda case: {"hungry": build})
    monkeypatch.setattr(networks, "OURS", hungry)
    arguments = {"image": 8, "batch": 2, "sparsity": 0.5, "seed": 0}
    assert 0.95 * size < _network_memory.StepMemory().measure("sparsejax", "hungry", arguments) < 1.2 * size


def test_kept_bytes_are_those_of_values_and_their_state():
    dense = nnx.Linear(10, 10, use_bias=False, rngs=nnx.Rngs(0))
    sparse, _ = sx.sparsify(dense, {"": np.eye(10, dtype=bool)}, min_sparsity=0.0, policy="always")
    kept = _network_memory.kept_bytes(dense, sparse, optax.sgd(0.1, momentum=0.9))
    assert (kept["dense"], kept["sparse"]) == (2 * 4 * 100, 2 * 4 * 10)
    assert kept["pattern"] == 4 * (3 * 10 + 2 * 11)


def test_the_breakdown_accounts_for_the_whole_step():
    step, parts = _breakdown.measure(networks.OURS.variants(CASE)["sparsify"]())
    np.testing.assert_allclose(sum(parts.values()), step, rtol=1e-6)
    assert list(parts) == [*_breakdown._KINDS, _breakdown._OUTSIDE]
    computed = [kind for kind in parts if "sparse convolutions" in kind or "batch norm" in kind]
    computed.remove("sparse convolutions, weight gradient of the first")  # dense, where that is measured to be faster
    assert len(computed) == 3 and all(0 < parts[kind] < step for kind in computed)


def test_the_breakdown_is_of_one_thread():
    with pytest.raises(ValueError, match="--threads has value 2; expected 1 with --breakdown"):
        _breakdown.run([CASE], 2)
