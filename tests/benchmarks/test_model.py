"""Whole networks: the implementations train the same one, and the reports say what was measured."""

import dataclasses
import json
import mmap

import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sx
from sparsejax.models import GPT, Bert, ViT
from sparsejax.nn import SparseLayer, modules_of
from sparsejax_bench import _breakdown, _cli, _network_memory, model
from sparsejax_bench.cases import _network, _networks, _transformer, _zoo
from sparsejax_bench.cases._network import NetworkPeer, Trainer
from sparsejax_bench.peers import network_flax, networks

CASE = _networks.make("resnet18", batch=8, sparsity=0.9, image=16)


def first_step(trainer, case=CASE):
    return trainer.step(), case.masked(trainer.gradients())


def test_masks_leave_out_the_first_convolution_and_are_uniform():
    assert "conv1" not in CASE.masks and len(CASE.masks) == 19
    assert {round(float(mask.mean()), 2) for mask in CASE.masks.values()} == {0.1}


def test_pytorch_and_sparseprop_train_our_network():
    pytest.importorskip("torch")
    ours = first_step(networks.OURS.variants(CASE)["sparsify"]())
    for peer in (networks.TORCH, networks.TORCH_BFLOAT16, networks.SPARSEPROP):
        if reason := peer.absent():
            print(f"{peer.name} is absent: {reason}")
            continue
        for variant, build in peer.variants(CASE).items():
            theirs = first_step(build())
            assert _network.difference(ours, theirs) < peer.tolerance(CASE), (peer.name, variant)
    wrong = {path: g.copy() for path, g in ours[1].items()}
    wrong["layer3/0/downsample/0/kernel"] *= 1.05
    assert _network.difference(ours, (ours[0], wrong)) > networks.OURS.tolerance(CASE)


def test_sparseprop_is_refused_where_it_is_wrong():
    unsupported = networks.SPARSEPROP.unsupported
    assert "multiple of 8" in (unsupported(dataclasses.replace(CASE, batch=9)) or "")
    assert unsupported(_networks.make("vit-small", batch=8, sparsity=0.9)) == "ResNets only"
    small, large = (set(networks.SPARSEPROP.variants(dataclasses.replace(CASE, image=size))) for size in (16, 64))
    assert small == {"over batch", "over rows"} and large == {"over batch", "over rows", "by size"}


@pytest.fixture
def transformer(monkeypatch):
    """A tiny transformer, named as one of the two."""
    monkeypatch.setitem(_transformer.SIZES, "vit-small", _transformer.Size(2, 24, 3, 48, 5))
    return _networks.make("vit-small", batch=4, sparsity=0.8)


def test_all_projections_of_a_transformer_are_pruned_and_sparse(transformer):
    layers = ["attention/query", "attention/key", "attention/value", "attention/out", "fc1", "fc2"]
    assert sorted(transformer.masks) == sorted(f"blocks/{i}/{layer}" for i in range(2) for layer in layers)
    assert {round(float(mask.mean()), 2) for mask in transformer.masks.values()} == {0.2}
    sparse = modules_of(network_flax.sparse_model(transformer), (SparseLayer,))
    assert transformer.masks.keys() <= sparse.keys()
    tokens = {name: size.tokens for name, size in _transformer.SIZES.items()}
    assert tokens == {"vit-small": 5, "transformer-768": 128}


def test_all_implementations_train_the_same_transformer(transformer):
    half = dataclasses.replace(transformer, dtype="bfloat16")
    right = first_step(next(iter(networks.DENSE.variants(transformer).values()))(), transformer)
    seen = {}
    for case, peers in ((transformer, networks.PEERS.values()), (half, [networks.DENSE])):
        for peer in (networks.OURS, *peers):
            if not (peer.absent() or peer.unsupported(case)):
                for variant, build in peer.variants(case).items():
                    error = _network.difference(right, first_step(build(), case))
                    seen[case.dtype, peer.name, variant] = error
                    exact = peer.tolerance(case) == _network.TOLERANCES["float32"]
                    assert (error < 1e-4) if exact else (1e-4 < error < 0.1), seen
    assert ("bfloat16", "sparsejax", "sparsify") in seen and ("bfloat16", "xla", "flax") in seen


def test_the_body_of_a_transformer_of_the_zoo_is_pruned():
    counts = {name: len(_networks.make(name, batch=1, sparsity=0.9).kernels()) for name in _zoo.ZOO}
    assert counts == {"vit_tiny": 48, "vit_small": 48, "vit_base": 48, "gpt": 48, "bert": 72}
    text = _networks.make("gpt", batch=2, sparsity=0.9)
    assert text.inputs.dtype == text.labels.dtype == "int32" and text.labels.shape == text.inputs.shape == (2, 128)
    assert _networks.make("bert", batch=2, sparsity=0.9).labels.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny", "gpt", "bert"])
def test_all_implementations_train_the_same_transformer_of_the_zoo(name, monkeypatch):
    """In PyTorch, too, where Hugging Face's library is installed."""
    small = {"width": 24, "depth": 2, "heads": 3}
    build = {
        "vit_tiny": lambda rngs: ViT(10, image_size=(16, 16), patch=8, rngs=rngs, **small),
        "gpt": lambda rngs: GPT(50, length=8, rngs=rngs, **small),
        "bert": lambda rngs: Bert(10, vocabulary=50, length=8, rngs=rngs, **small),
    }[name]
    tiny = {"build": build, "input_shape": (16, 16, 3) if name == "vit_tiny" else (8,)}
    tiny["vocabulary"] = 0 if name == "vit_tiny" else 50
    monkeypatch.setitem(_zoo.ZOO, name, _zoo.ZOO[name]._replace(**tiny))
    monkeypatch.setattr(_network, "CLASSES", 10)
    case = _networks.make(name, batch=4, sparsity=0.8)
    per_block = {"vit_tiny": 4, "gpt": 4, "bert": 6}
    assert len(case.masks) == 2 * per_block[name]
    sparse = modules_of(network_flax.sparse_model(case), (SparseLayer,))
    assert case.masks.keys() <= sparse.keys()
    right = first_step(next(iter(networks.DENSE.variants(case).values()))(), case)
    half = dataclasses.replace(case, dtype="bfloat16")
    peers = [(case, networks.OURS), (half, networks.OURS), (case, networks.TORCH), (case, networks.TORCH_BFLOAT16)]
    for of, peer in peers:
        if peer.absent() or peer.unsupported(of):
            continue
        for variant, start in peer.variants(of).items():
            error = _network.difference(right, first_step(start(), of))
            exact = peer.tolerance(of) == _network.TOLERANCES["float32"]
            assert (error < 1e-3) if exact else (1e-4 < error < 0.1), (peer.name, variant, error)


def test_a_gradient_of_rounding_errors_only_is_not_compared_to_itself():
    right = 1.0, {"key/bias": np.array([1e-9]), "key/kernel": np.array([1.0])}
    got = 1.0, {"key/bias": np.array([-3e-9]), "key/kernel": np.array([1.0])}
    assert _network.difference(right, got) < 1e-5
    got[1]["key/bias"][0] = 0.1
    assert _network.difference(right, got) > 1


def test_the_type_is_that_of_products_and_not_of_parameters(transformer):
    model = dataclasses.replace(transformer, dtype="bfloat16").model()
    block = model.blocks[0]
    assert {m.dtype.name for m in (block.fc1, block.norm1, block.attention.query)} == {"bfloat16"}
    assert model.fc.dtype != "bfloat16" and block.fc1.kernel.dtype == "float32"
    assert model(transformer.inputs).dtype == "float32"


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
    torch = peer("torch", good=[1.0, 2.0], bad=[1.0, 3.0])
    half = peer("torch_bfloat16", pure=[1.0, 2.01])
    others = (networks.DENSE, torch, half, peer("sparseprop", absent="not here"))
    monkeypatch.setattr(networks, "PEERS", {p.name: p for p in others})


def test_model_times_right_variants_only(quick, capsys):
    assert _cli.run_pinned(["model", "--image", "16", "--batch", "8", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    row = found["rows"][0]
    assert [(t["name"], t["variant"]) for t in row["timed"]] == [
        ("sparsejax", "sparsify"),
        ("xla", "flax"),
        ("torch", "good"),
        ("torch_bfloat16", "pure"),
    ]
    assert row["status"]["torch"].startswith("wrong: error") and row["status"]["sparseprop"] == "absent: not here"
    assert [entry["verdict"] for entry in found["summary"]][-1] == "not measured"
    assert _cli.run_pinned(["model", "--image", "16", "--batch", "8"]) == 0
    assert "sparsejax, sparsify" in capsys.readouterr().out


def test_targets_are_those_of_network_type_and_sparsity(quick, capsys):
    def summary(*words):
        assert _cli.run_pinned(["model", *words, "--json", "-"]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["rows"], [(e["must"], e["aim"], e["measured"] is not None) for e in found["summary"]]

    rows, found = summary("--model", "vit-small", "--sparsity", "0.9", "0.95")
    assert [row["batch"] for row in rows] == [8, 8] and "image" not in rows[0]
    assert found == [(3.2, 5, True), (3.8, 7, True)]
    rows, found = summary("--model", "transformer-768", "--dtype", "bfloat16", "--batch", "3")
    assert (rows[0]["batch"], rows[0]["dtype"]) == (3, "bfloat16") and found == [(3.5, 6, True)]
    rows, found = summary("--dtype", "bfloat16", "--image", "16")
    assert (rows[0]["image"], rows[0]["batch"]) == (16, 16) and found == [(4, 6, True)]
    assert _cli.run_pinned(["model", "--dtype", "bfloat16", "--image", "16"]) == 0
    assert "batch 16, pure; against PyTorch in float32 " in capsys.readouterr().out


def test_a_wrong_step_of_ours_is_an_error(quick, monkeypatch):
    monkeypatch.setattr(networks, "OURS", peer("sparsejax", sparsify=[1.0, 5.0]))
    with pytest.raises(RuntimeError, match="model: sparsejax is wrong"):
        model.measure(CASE, [], 7)


def test_peers_of_models_are_checked():
    with pytest.raises(
        ValueError, match="--peers has value 'mkl'; expected names among xla, torch, torch_bfloat16, spa"
    ):
        networks.choose(["mkl"])


def test_memory_sees_what_a_step_touches(quick, monkeypatch):
    size = 256 * 2**20

    def build():
        def step():
            with mmap.mmap(-1, size) as memory:  # fresh pages, whatever the allocator keeps from tests before this one
                for page in range(0, size, mmap.PAGESIZE):
                    memory[page] = 1
            return 1.0

        return Trainer(step, dict)

    hungry = NetworkPeer("sparsejax", lambda: None, lambda case: None, lambda case: {"hungry": build})
    monkeypatch.setattr(networks, "OURS", hungry)
    arguments = {"network": "resnet18", "image": 8, "batch": 2, "sparsity": 0.5, "dtype": "float32", "seed": 0}
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
