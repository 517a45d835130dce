"""``save_torch_state_dict``: torch reads back the model, masks included, under the names that it came in with."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models import MLP, load_torch, save_torch_state_dict
from sparsejax.nn import sparsify

torch: Any = pytest.importorskip("torch")
X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


class Net(torch.nn.Module):
    """The names of an `MLP` with one hidden layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(6, 5)])
        self.fc = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.layers[0](x).relu())


def pruned() -> Any:
    from torch.nn.utils import prune

    net = Net()
    prune.l1_unstructured(net.layers[0], "weight", amount=0.7)
    return net


def logits(net) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pruned_network_goes_there_and_back(tmp_path, is_sparse, suffix):
    net = pruned()
    source = {f"module.{name}": value for name, value in net.state_dict().items()}
    model: Any = MLP(6, 3, hidden=(5,), rngs=nnx.Rngs(1))
    report = load_torch(model, source)
    if is_sparse:
        model, _ = sparsify(model, report.masks, min_sparsity=0.5, policy="always")
    trained = model.layers[0].kernel
    trained.set_value(trained[...] * 1.5)
    path = tmp_path / f"back{suffix}"
    save_torch_state_dict(model, path, "prune", like=report)
    if suffix == ".pt":
        state = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(path)
    assert set(state) == set(source)
    before = net.layers[0].weight_mask.clone()
    net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    assert torch.equal(net.layers[0].weight_mask, before) and 0 < before.mean() < 1
    np.testing.assert_allclose(logits(net), model(jnp.asarray(X)), atol=1e-5)


@pytest.mark.parametrize("form", ["dense", "coo"])
def test_other_forms_hold_the_same_numbers_and_masks(tmp_path, form):
    net = pruned()
    model: Any = MLP(6, 3, hidden=(5,), rngs=nnx.Rngs(1))
    masks = load_torch(model, net.state_dict()).masks
    save_torch_state_dict(model, tmp_path / "model.pt", form)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    plain = Net()
    plain.load_state_dict({name: value.to_dense() for name, value in state.items()})
    np.testing.assert_allclose(logits(plain), model(jnp.asarray(X)), atol=1e-5)
    again = MLP(6, 3, hidden=(5,), rngs=nnx.Rngs(2))
    read = load_torch(again, tmp_path / "model.pt").masks
    assert set(read) == set(masks) == {"layers/0"}
    np.testing.assert_array_equal(read["layers/0"], masks["layers/0"])
    assert state["layers.0.weight"].is_sparse == (form == "coo")


def test_a_stored_zero_stays_in_the_mask(tmp_path):
    model = MLP(6, 3, hidden=(), rngs=nnx.Rngs(0))
    mask = np.random.default_rng(0).random((6, 3)) < 0.5
    kernel = np.where(mask, np.asarray(model.fc.kernel[...]), 0)
    kernel[tuple(np.argwhere(mask)[0])] = 0
    model.fc.kernel.set_value(jnp.asarray(kernel))
    for form in ("prune", "coo"):
        save_torch_state_dict(model, tmp_path / "model.pt", form, masks={"fc": mask})
        read = load_torch(MLP(6, 3, hidden=(), rngs=nnx.Rngs(1)), tmp_path / "model.pt").masks
        np.testing.assert_array_equal(read["fc"], mask)


@pytest.mark.parametrize("names", ["in_proj", "q_proj"])
def test_projections_are_written_as_they_came_in(tmp_path, names):
    class Ours(nnx.Module):
        def __init__(self):
            self.attn = nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0))
            self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

    fused, norm = torch.nn.MultiheadAttention(4, 2), torch.nn.BatchNorm1d(4)
    state = {f"attn.{name}": value + 0.5 for name, value in fused.state_dict().items()}
    if names == "q_proj":
        for kind in ("weight", "bias"):
            parts = zip("qkv", state.pop(f"attn.in_proj_{kind}").chunk(3), strict=True)
            state |= {f"attn.{part}_proj.{kind}": value for part, value in parts}
    state |= {f"norm.{name}": value for name, value in norm.state_dict().items()}
    model = Ours()
    report = load_torch(model, state)
    save_torch_state_dict(model, tmp_path / "model.pt", like=report)
    written = torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(written) == set(state)
    assert all(torch.equal(written[name], value) for name, value in state.items())


def test_bad_arguments_are_refused_and_nothing_is_written(tmp_path):
    model = MLP(6, 3, hidden=(), rngs=nnx.Rngs(0))
    for arguments, words in (
        ({"form": "csr"}, "form has value 'csr'; expected one of 'dense', 'prune', 'coo'"),
        ({"form": "coo"}, "form has value 'coo'; expected 'dense' or 'prune' for a safetensors file"),
        ({"masks": {"fcc": np.ones((6, 3), bool)}}, "masks has path 'fcc'; expected paths of layers, such as 'fc'"),
        ({"masks": {"fc": np.ones((3, 6), bool)}}, r"mask 'fc' has shape \(3, 6\); expected \(6, 3\)"),
    ):
        with pytest.raises(ValueError, match=rf"save_torch_state_dict: {words}"):
            save_torch_state_dict(model, tmp_path / "m.safetensors", **arguments)
    other = load_torch(MLP(6, 3, hidden=(2,), rngs=nnx.Rngs(0)), {"layers.0.weight": np.ones((2, 6))})
    with pytest.raises(ValueError, match=r"like has the variable 'layers.0.weight'; expected the report of loading"):
        save_torch_state_dict(model, tmp_path / "m.safetensors", like=other)
    assert list(tmp_path.iterdir()) == []
