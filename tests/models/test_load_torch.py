"""``load_torch``: any NNX model, by name and shape, with a report of what is left on both sides."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models import MLP, load_torch, resnet18
from sparsejax.nn import sparsify

torch: Any = pytest.importorskip("torch")

WIDTH, HEADS = 8, 2
X = np.random.default_rng(0).normal(size=(3, 5, WIDTH)).astype(np.float32)


class Block(nnx.Module):
    """A block as a user writes one, with Flax's own attention."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.fc = nnx.Linear(WIDTH, 4, rngs=rngs)

    def __call__(self, x):
        return self.fc(x + self.attn(self.norm(x)))


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.attn = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.fc = torch.nn.Linear(WIDTH, 4)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.5)

    def forward(self, x):
        y = self.norm(x)
        return self.fc(x + self.attn(y, y, y, need_weights=False)[0])


def expected(net) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(X)).numpy()


def in_form(state: dict[str, Any], form: str) -> dict[str, Any]:
    """Name the projections of attention as torch, timm, Hugging Face or Flax do."""
    if form == "in_proj":
        return state
    result = {name: value for name, value in state.items() if "in_proj" not in name}
    if form == "qkv":
        return {name.replace("out_proj", "proj"): value for name, value in result.items()} | {
            f"attn.qkv.{kind}": state[f"attn.in_proj_{kind}"] for kind in ("weight", "bias")
        }
    for kind in ("weight", "bias"):
        parts = zip(("query", "key", "value"), state[f"attn.in_proj_{kind}"].chunk(3), strict=True)
        result |= {f"attn.{part if form == 'flax' else f'{part[0]}_proj'}.{kind}": value for part, value in parts}
    if form == "flax":
        result = {name.replace("out_proj", "out"): value for name, value in result.items()}
    return result


@pytest.mark.parametrize("form", ["in_proj", "qkv", "q_proj", "flax"])
def test_attention_of_flax_takes_projections_in_any_form(form):
    net = TorchBlock()
    state = in_form(net.state_dict(), form)
    model = nnx.eval_shape(lambda: Block(nnx.Rngs(0)))
    report = load_torch(model, state)
    np.testing.assert_allclose(model(jnp.asarray(X)), expected(net), atol=1e-5)
    assert (report.missing, report.unused, len(report.loaded)) == ((), (), 12)
    assert report.notes == (("fused projections split: 2",) if form in ("in_proj", "qkv") else ())


def test_masks_of_fused_projections_are_split():
    net = TorchBlock()
    keep = np.random.default_rng(1).random((3 * WIDTH, WIDTH)) < 0.5
    keep[WIDTH : 2 * WIDTH] = True  # nothing of the keys is pruned
    state = dict(net.state_dict())
    state["attn.in_proj_weight_orig"] = state.pop("attn.in_proj_weight")
    state["attn.in_proj_weight_mask"] = torch.from_numpy(keep)
    # torch.nn.utils.prune knows attributes called weight and bias; fused projections are masked as timm's are.
    state["attn.qkv.weight_orig"] = state.pop("attn.in_proj_weight_orig")
    state["attn.qkv.weight_mask"] = state.pop("attn.in_proj_weight_mask")
    model = nnx.eval_shape(lambda: Block(nnx.Rngs(0)))
    report = load_torch(model, state)
    assert set(report.masks) == {"attn/query", "attn/value"}
    np.testing.assert_array_equal(report.masks["attn/query"].reshape(WIDTH, WIDTH), keep[:WIDTH].T)
    np.testing.assert_array_equal(report.masks["attn/value"].reshape(WIDTH, WIDTH), keep[2 * WIDTH :].T)
    sparse, rows = sparsify(model, report.masks, min_sparsity=0.3, policy="always")
    assert {row.path for row in rows.rows if row.action == "sparse"} == {"attn/query", "attn/value"}
    np.testing.assert_allclose(sparse(jnp.asarray(X)), model(jnp.asarray(X)), atol=1e-5)


def test_other_layers_equal_torch():
    class Ours(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(7, 3, rngs=rngs)
            self.up = nnx.ConvTranspose(3, 4, (3, 2), padding="VALID", rngs=rngs)
            self.group = nnx.GroupNorm(4, num_groups=2, epsilon=1e-5, rngs=rngs)
            self.down = nnx.Conv(4, 6, (3, 2), padding="VALID", feature_group_count=2, rngs=rngs)
            self.shift = nnx.Param(jnp.zeros((6,)))

        def __call__(self, tokens):
            return self.down(self.group(self.up(self.embed(tokens)))) + self.shift

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = torch.nn.Embedding(7, 3)
            self.up = torch.nn.ConvTranspose2d(3, 4, (3, 2))
            self.group = torch.nn.GroupNorm(2, 4)
            self.down = torch.nn.Conv2d(4, 6, (3, 2), groups=2)
            self.shift = torch.nn.Parameter(torch.randn(6))

        def forward(self, tokens):
            x = self.embed(tokens).permute(0, 3, 1, 2)
            return self.down(self.group(self.up(x))).permute(0, 2, 3, 1) + self.shift

    net, model = Theirs(), Ours(nnx.Rngs(0))
    tokens = np.random.default_rng(0).integers(0, 7, (2, 4, 5))
    report = load_torch(model, net.state_dict())
    assert (report.missing, report.unused) == ((), ())
    with torch.no_grad():
        np.testing.assert_allclose(model(jnp.asarray(tokens)), net(torch.from_numpy(tokens)).numpy(), atol=1e-5)


def mlp() -> MLP:
    return MLP(3, 2, hidden=(4,), rngs=nnx.Rngs(0))


def state(first: str = "layers.0", last: str = "fc") -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {f"{first}.weight": (4, 3), f"{first}.bias": (4,), f"{last}.weight": (2, 4), f"{last}.bias": (2,)}
    return {name: generator.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "names",
    [
        {"encoder.0": "layers.0", "out": "fc"},
        {"encoder": "layers", "out.weight": "fc.weight", "out.bias": "fc.bias"},
        lambda name: name.replace("encoder", "layers").replace("out", "fc"),
    ],
)
def test_names_of_the_user_lead(names):
    source, model = state("encoder.0", "out"), mlp()
    report = load_torch(model, {f"module.{name}": value for name, value in source.items()}, names)
    assert (report.missing, report.unused) == ((), ())
    np.testing.assert_allclose(model.fc.kernel[...], source["out.weight"].T, rtol=1e-6)


def test_what_is_left_is_reported_and_kept():
    model = mlp()
    bias = np.asarray(model.fc.bias[...]) + 3
    model.fc.bias.set_value(jnp.asarray(bias))
    source = state() | {"extra.weight": np.ones((2, 2)), "drop.me": np.ones(3)}
    del source["fc.bias"]
    report = load_torch(model, source, {"drop": None})
    assert (report.missing, report.unused) == (("fc.bias",), ("extra.weight",))
    np.testing.assert_array_equal(model.fc.bias[...], bias)
    assert "not in the checkpoint: fc.bias\nnot in the model: extra.weight" in str(report)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"layers.0": "layer.0"}, r"names, for 'layers.0\..*', has the name 'layer.0\..*Nearest names: layers.0"),
        ({"layer.0": "layers.0"}, r"names has the name 'layer.0'; expected a name of the checkpoint"),
    ],
)
def test_names_that_do_not_exist_are_refused(names, words):
    with pytest.raises(ValueError, match=words):
        load_torch(mlp(), state(), names)
    with pytest.raises(TypeError, match=r"names, for .* has type int; expected a name or None"):
        load_torch(mlp(), state(), lambda name: 3)


def test_a_checkpoint_of_which_nothing_fits_is_refused():
    with pytest.raises(ValueError, match=r"no tensor that fits .*expected names such as fc.bias.*Pass names"):
        load_torch(mlp(), {"a": np.ones(2), "b.weight": np.ones((2, 3))})
    with pytest.raises(ValueError, match=r"both 'fc.bias' and 'a' for 'fc.bias'"):
        load_torch(mlp(), state() | {"a": np.ones(2)}, {"a": "fc.bias"})


def test_another_head_is_kept_only_when_asked():
    source = state()
    source |= {"fc.weight": np.ones((5, 4)), "fc.bias": np.ones(5)}
    with pytest.raises(ValueError, match=r"fc.weight \(5, 4\) instead of \(2, 4\).*replace_head=True keeps"):
        load_torch(mlp(), source)
    model = mlp()
    kernel = np.asarray(model.fc.kernel[...])
    report = load_torch(model, source, replace_head=True)
    assert report.missing == ("fc.bias", "fc.weight") and report.loaded == ("layers.0.bias", "layers.0.weight")
    assert report.notes[0].startswith("the model's own fc kept: ")
    np.testing.assert_array_equal(model.fc.kernel[...], kernel)
    source["layers.0.bias"] = np.ones(3)
    with pytest.raises(ValueError, match=r"layers.0.bias \(3,\) instead of \(4,\)"):
        load_torch(mlp(), source, replace_head=True)


def test_an_abstract_model_must_find_everything():
    source = state()
    source["fc.biass"] = source.pop("fc.bias")
    with pytest.raises(ValueError, match=r"missing entries fc.bias; .*Nearest names: fc.biass for fc.bias"):
        load_torch(nnx.eval_shape(mlp), source)


def hugging_face(name: str) -> str:
    """Return Hugging Face's name of a tensor of torchvision's ResNet."""
    layer, _, kind = name.rpartition(".")
    parts = layer.split(".")
    if parts[0] == "fc":
        return f"classifier.1.{kind}"
    conv = "normalization" if "bn" in parts[-1] else "convolution"
    if len(parts) == 1:
        return f"resnet.embedder.embedder.{conv}.{kind}"
    block = f"resnet.encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{block}.shortcut.{('convolution', 'normalization')[int(parts[3])]}.{kind}"
    return f"{block}.layer.{int(parts[2][-1]) - 1}.{conv}.{kind}"


def test_names_of_resnet_at_hugging_face(torch_resnet):
    net = torch_resnet(18)
    plain, renamed = (nnx.eval_shape(lambda: resnet18(10, rngs=nnx.Rngs(0))) for _ in range(2))
    load_torch(plain, net.state_dict())
    report = load_torch(renamed, {hugging_face(name): value for name, value in net.state_dict().items()})
    assert (report.missing, report.unused) == ((), ())
    assert "names of Hugging Face ResNet translated" in report.notes
    for a, b in zip(nnx.to_flat_state(nnx.state(plain)), nnx.to_flat_state(nnx.state(renamed)), strict=True):
        np.testing.assert_array_equal(a[1].get_value(), b[1].get_value())
