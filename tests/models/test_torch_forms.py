"""Pruned checkpoints as torch's own tools write them: prune, parametrize, sparse tensors, wrappers, half precision."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models import MLP, load_torch_state_dict

torch: Any = pytest.importorskip("torch")


class Net(torch.nn.Module):
    """The names of an `MLP` with one hidden layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(6, 5)])
        self.fc = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.layers[0](x).relu())


X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def empty() -> Any:
    return nnx.eval_shape(lambda: MLP(6, 3, hidden=(5,), rngs=nnx.Rngs(0)))


def check_same(net, source, masks: dict[str, Any], *, atol: float = 1e-6):
    """Load a checkpoint, compare logits and masks with those of torch, return the report."""
    model = empty()
    report = load_torch_state_dict(model, source)
    with torch.no_grad():
        expected = net(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(model(jnp.asarray(X)), expected, atol=atol)
    assert set(report.masks) == set(masks)
    for layer, mask in masks.items():
        np.testing.assert_array_equal(report.masks[layer], np.asarray(mask, bool).T)
    return report


@pytest.mark.parametrize("as_file", [False, True])
def test_torch_prune_is_read(tmp_path, as_file):
    from torch.nn.utils import prune

    net = Net()
    prune.l1_unstructured(net.layers[0], "weight", amount=0.5)
    prune.random_unstructured(net.layers[0], "bias", amount=2)
    prune.l1_unstructured(net.fc, "weight", amount=0.8)
    source = net.state_dict()
    assert "fc.weight_orig" in source and "fc.weight" not in source
    if as_file:
        torch.save(source, tmp_path / "pruned.pt")
        source = tmp_path / "pruned.pt"
    report = check_same(net, source, {"layers/0": net.layers[0].weight_mask, "fc": net.fc.weight_mask})
    assert report.notes == ("tensors of torch.nn.utils.prune: 3",)


def test_parametrize_with_masks_is_read():
    from torch.nn.utils import parametrize

    class Masked(torch.nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, weight):
            return weight * self.mask

    net = Net()
    generator = np.random.default_rng(1)
    first, second, head = (
        torch.from_numpy((generator.random(shape) < 0.6).astype(np.float32)) for shape in ((5, 6), (5, 6), (3, 5))
    )
    parametrize.register_parametrization(net.layers[0], "weight", Masked(first))
    parametrize.register_parametrization(net.layers[0], "weight", Masked(second))
    parametrize.register_parametrization(net.fc, "weight", Masked(head))
    report = check_same(net, net.state_dict(), {"layers/0": first * second, "fc": head})
    assert report.notes == ("tensors of torch.nn.utils.parametrize: 2",)


def test_torch_ao_pruning_is_read():
    try:
        from torch.ao.pruning import WeightNormSparsifier
    except ImportError:
        pytest.skip("no torch.ao.pruning")
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
        sparsifier.prepare(net, [{"tensor_fqn": "fc.weight"}])
        sparsifier.step()
    model = empty()
    report = load_torch_state_dict(model, net.state_dict())  # has the weights before masking, and no mask
    assert report.masks == {} and report.notes == (
        "tensors of torch.nn.utils.parametrize: 1",
        "no mask of a parametrization is stored (for torch.ao.pruning call squash_mask() first)",
    )
    sparsifier.squash_mask()
    mask = net.fc.weight.detach() != 0
    assert 0 < mask.float().mean() < 1
    check_same(net, net.state_dict(), {"fc": mask})


def masked_net() -> tuple[Any, dict[str, Any]]:
    net, generator = Net(), np.random.default_rng(2)
    masks = {}
    for path, layer in (("layers/0", net.layers[0]), ("fc", net.fc)):
        keep = generator.random(tuple(layer.weight.shape)) < 0.4
        layer.weight.data.mul_(torch.from_numpy(keep.astype(np.float32)))
        masks[path] = keep
    return net, masks


@pytest.mark.parametrize("prefixes", ["module.", "model.", "net.", "_orig_mod.", "backbone.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed_and_named(prefixes):
    net, masks = masked_net()
    state = {prefixes + name: tensor for name, tensor in net.state_dict().items()}
    report = check_same(net, state, masks)
    expected = {f"prefix '{prefix}.' removed from 4 names" for prefix in prefixes.rstrip(".").split(".")}
    assert set(report.notes) == expected


def test_a_prefix_of_some_names_is_counted():
    net, masks = masked_net()
    state = {name if name.startswith("fc") else f"backbone.{name}": tensor for name, tensor in net.state_dict().items()}
    assert check_same(net, state, masks).notes == ("prefix 'backbone.' removed from 2 names",)


def test_an_attribute_of_the_model_is_no_prefix():
    class Wrapped(nnx.Module):
        def __init__(self, rngs):
            self.backbone = nnx.Linear(2, 3, rngs=rngs)

    model = Wrapped(nnx.Rngs(0))
    state = {"backbone.weight": np.ones((3, 2)), "backbone.bias": np.zeros(3)}
    assert load_torch_state_dict(model, state).notes == ()
    assert load_torch_state_dict(model, {f"model.{n}": v for n, v in state.items()}).notes


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "params", "ema"])
def test_envelopes_are_opened(key):
    net, masks = masked_net()
    report = check_same(net, {"epoch": 7, key: net.state_dict(), "optimizer": {"lr": 0.1}}, masks)
    assert report.epoch == 7 and len(report.notes) == (not key.endswith("state_dict"))


def test_of_several_envelopes_one_is_read_and_the_others_are_named():
    net, masks = masked_net()
    other = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    report = check_same(net, {"ema": other, "model": net.state_dict()}, masks)
    assert report.notes == ("tensors read from 'model'; ema not read",)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr", "sparse_csc"])
@pytest.mark.parametrize("as_file", [False, True])
def test_sparse_tensors_are_made_dense_and_their_entries_are_the_mask(tmp_path, layout, as_file):
    net, masks = masked_net()
    state = net.state_dict()
    for name in ("layers.0.weight", "fc.weight"):
        state[name] = state[name].to_sparse(layout=getattr(torch, layout))
    if layout == "sparse_coo":  # a stored zero is an entry
        state["fc.weight"].values()[0] = 0
        net.fc.weight.data = state["fc.weight"].to_dense()
    if as_file:
        torch.save(state, tmp_path / "sparse.pt")
        state = tmp_path / "sparse.pt"
    assert check_same(net, state, masks).notes == ("sparse tensors made dense: 2",)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", ["dict", ".pt", ".safetensors"])
def test_half_precision_is_read(tmp_path, kind, form):
    net, masks = masked_net()
    state = {name: tensor.to(getattr(torch, kind)) for name, tensor in net.state_dict().items()}
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    if form == ".pt":
        torch.save(state, tmp_path / "half.pt")
    elif form == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, tmp_path / "half.safetensors")
    check_same(net, state if form == "dict" else tmp_path / f"half{form}", masks)


@pytest.mark.parametrize(
    ("kind", "zeros", "is_mask"), [("float16", 2, False), ("float16", 20, True), ("float32", 2, True)]
)
def test_few_zeros_in_half_precision_are_no_mask(kind, zeros, is_mask):
    weight = torch.ones(10, 10)
    weight.view(-1)[:zeros] = 1e-9 if kind == "float16" else 0
    model = MLP(10, 10, hidden=(), rngs=nnx.Rngs(0))
    report = load_torch_state_dict(model, {"fc.weight": weight.to(getattr(torch, kind)), "fc.bias": torch.zeros(10)})
    assert ("fc" in report.masks) == is_mask
    assert report.notes == (() if is_mask else ("fc.weight: 2 of 100 zeros may be rounded weights and are no mask",))


def test_values_that_are_not_finite_are_noted():
    state = Net().state_dict()
    state["fc.weight"][0, :2] = torch.tensor([float("nan"), float("inf")])
    state["layers.0.bias"] = torch.full((5,), 1e300, dtype=torch.float64)
    notes = load_torch_state_dict(empty(), state).notes
    assert notes == (
        "fc.weight: 2 of 15 values are NaN or infinite in float32",
        "layers.0.bias: 5 of 5 values are NaN or infinite in float32",
    )
    state["fc.weight_mask"] = torch.ones(3, 5)
    state["fc.weight_mask"][0, :2] = 0
    assert len(load_torch_state_dict(empty(), state).notes) == 1  # masked weights are zeros


def test_a_stored_mask_decides_over_the_entries_of_a_sparse_tensor():
    net, masks = masked_net()
    state = net.state_dict()
    state["fc.weight"] = state["fc.weight"].to_sparse()
    state["fc.weight_mask"] = torch.ones(3, 5)
    state["fc.weight_mask"][0] = 0
    net.fc.weight.data[0] = 0
    check_same(net, state, masks | {"fc": state["fc.weight_mask"]})


def test_masks_of_several_parametrizations_have_one_shape():
    state = Net().state_dict()
    state["fc.parametrizations.weight.original"] = state.pop("fc.weight")
    state |= {"fc.parametrizations.weight.0.mask": torch.ones(3, 5), "fc.parametrizations.weight.1.mask": torch.ones(5)}
    with pytest.raises(ValueError, match=r"mask 'fc.*1.mask' has shape \(5,\); expected \(3, 5\)"):
        load_torch_state_dict(empty(), state)
