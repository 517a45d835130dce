"""ViT, GPT and BERT against torch modules under timm's and Hugging Face's names, and what pruning takes of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax.models import GPT, Bert, ViT, body_kernels, load_torch, save_torch_state_dict, stem_of_torch, vit

WIDTH, HEADS, LENGTH, VOCABULARY = 16, 2, 7, 11
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, VOCABULARY, (2, 5))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def make_vit(rngs: nnx.Rngs, depth: int = 2) -> ViT:
    return ViT(3, width=WIDTH, depth=depth, heads=HEADS, image_size=(8, 8), patch=4, rngs=rngs)


def make_gpt(rngs: nnx.Rngs, depth: int = 2) -> GPT:
    return GPT(VOCABULARY, width=WIDTH, depth=depth, heads=HEADS, length=LENGTH, rngs=rngs)


def make_bert(rngs: nnx.Rngs, depth: int = 2) -> Bert:
    return Bert(3, vocabulary=VOCABULARY, width=WIDTH, depth=depth, heads=HEADS, length=LENGTH, rngs=rngs)


class Torch:
    """Layers by name, on torch's own functions; a forward pass draws each tensor and so writes a whole checkpoint."""

    def __init__(self, prefix: str = ""):
        self.torch: Any = pytest.importorskip("torch")
        self.state: dict[str, Any] = {}
        self.generator = self.torch.Generator().manual_seed(0)
        self.prefix = prefix

    def tensor(self, name: str, *shape: int, scale: float = 0.3) -> Any:
        name = self.prefix + name
        if name not in self.state:
            self.state[name] = self.torch.randn(shape, generator=self.generator) * scale
        return self.state[name]

    def linear(self, name: str, x: Any, out: int) -> Any:
        weight, bias = self.tensor(f"{name}.weight", out, x.shape[-1]), self.tensor(f"{name}.bias", out)
        return self.torch.nn.functional.linear(x, weight, bias)

    def conv1d(self, name: str, x: Any, out: int) -> Any:
        """Hugging Face's Conv1D: the weight is (in, out)."""
        return x @ self.tensor(f"{name}.weight", x.shape[-1], out) + self.tensor(f"{name}.bias", out)

    def norm(self, name: str, x: Any, eps: float) -> Any:
        weight, bias = self.tensor(f"{name}.weight", x.shape[-1]), self.tensor(f"{name}.bias", x.shape[-1])
        return self.torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)

    def attend(self, q: Any, k: Any, v: Any, **options: Any) -> Any:
        q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
        y = self.torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
        return y.transpose(1, 2).flatten(-2)

    def gelu(self, x: Any, approximate: str = "none") -> Any:
        return self.torch.nn.functional.gelu(x, approximate=approximate)

    def embedding(self, name: str, count: int, index: Any) -> Any:
        return self.tensor(f"{name}.weight", count, WIDTH)[index]


def torch_vit(net: Torch, eps: float = 1e-6) -> Any:
    torch = net.torch
    weight, bias = net.tensor("patch_embed.proj.weight", WIDTH, 3, 4, 4), net.tensor("patch_embed.proj.bias", WIDTH)
    x = torch.nn.functional.conv2d(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), weight, bias, 4)
    x = torch.cat([net.tensor("cls_token", 1, 1, WIDTH).expand(2, -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + net.tensor("pos_embed", 1, 5, WIDTH)
    for i in range(2):
        name = f"blocks.{i}"
        q, k, v = net.linear(f"{name}.attn.qkv", net.norm(f"{name}.norm1", x, eps), 3 * WIDTH).chunk(3, -1)
        x = x + net.linear(f"{name}.attn.proj", net.attend(q, k, v), WIDTH)
        y = net.gelu(net.linear(f"{name}.mlp.fc1", net.norm(f"{name}.norm2", x, eps), 4 * WIDTH))
        x = x + net.linear(f"{name}.mlp.fc2", y, WIDTH)
    return net.linear("head", net.norm("norm", x, eps)[:, 0], 3)


def torch_gpt(net: Torch) -> Any:
    x = net.embedding("wte", VOCABULARY, net.torch.from_numpy(TOKENS)) + net.tensor("wpe.weight", LENGTH, WIDTH)[:5]
    for i in range(2):
        name = f"h.{i}"
        q, k, v = net.conv1d(f"{name}.attn.c_attn", net.norm(f"{name}.ln_1", x, 1e-5), 3 * WIDTH).chunk(3, -1)
        x = x + net.conv1d(f"{name}.attn.c_proj", net.attend(q, k, v, is_causal=True), WIDTH)
        y = net.gelu(net.conv1d(f"{name}.mlp.c_fc", net.norm(f"{name}.ln_2", x, 1e-5), 4 * WIDTH), "tanh")
        x = x + net.conv1d(f"{name}.mlp.c_proj", y, WIDTH)
    net.state["lm_head.weight"] = net.tensor("wte.weight")
    return net.norm("ln_f", x, 1e-5) @ net.tensor("wte.weight").T


def torch_bert(net: Torch) -> Any:
    tokens, seen = net.torch.from_numpy(TOKENS), net.torch.from_numpy(MASK).bool()[:, None, None, :]
    x = net.embedding("embeddings.word_embeddings", VOCABULARY, tokens)
    x = x + net.tensor("embeddings.position_embeddings.weight", LENGTH, WIDTH)[:5]
    x = x + net.embedding("embeddings.token_type_embeddings", 2, net.torch.zeros_like(tokens))
    x = net.norm("embeddings.LayerNorm", x, 1e-12)
    for i in range(2):
        name = f"encoder.layer.{i}"
        parts = (net.linear(f"{name}.attention.self.{part}", x, WIDTH) for part in ("query", "key", "value"))
        y = net.linear(f"{name}.attention.output.dense", net.attend(*parts, attn_mask=seen), WIDTH)
        x = net.norm(f"{name}.attention.output.LayerNorm", x + y, 1e-12)
        y = net.linear(f"{name}.output.dense", net.gelu(net.linear(f"{name}.intermediate.dense", x, 4 * WIDTH)), WIDTH)
        x = net.norm(f"{name}.output.LayerNorm", x + y, 1e-12)
    return net.linear("classifier", net.linear("pooler.dense", x[:, 0], WIDTH).tanh(), 3)


CASES = {
    "vit": (make_vit, torch_vit, "", (IMAGES,)),
    "gpt": (make_gpt, torch_gpt, "transformer.", (TOKENS,)),
    "bert": (make_bert, torch_bert, "bert.", (TOKENS, MASK)),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_files_equal_torch(tmp_path, name):
    make, forward, prefix, inputs = CASES[name]
    net = Torch(prefix)
    expected = forward(net).numpy()
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    report = load_torch(model, net.state)
    assert (report.missing, report.unused) == ((), ())
    got = np.asarray(nnx.jit(lambda model, *x: model(*x))(model, *map(jnp.asarray, inputs)))
    assert expected.std() > 1e-2
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    save_torch_state_dict(model, tmp_path / "model.pt", like=report)
    written = net.torch.load(tmp_path / "model.pt", weights_only=True)
    assert set(written) == set(net.state)
    assert all(net.torch.equal(written[key], value) for key, value in net.state.items())


HUGGING_FACE = (
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("blocks.", "encoder.layer."),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("attn.proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
    ("head", "classifier"),
)


def test_a_vit_of_hugging_face_has_its_epsilon(tmp_path):
    """Activations are so small that timm's epsilon, 1e-6, would change the logits, also after there and back."""
    net = Torch()
    for name, shape in (("proj.weight", (WIDTH, 3, 4, 4)), ("proj.bias", (WIDTH,))):
        net.tensor(f"patch_embed.{name}", *shape, scale=1e-5)
    net.tensor("cls_token", 1, 1, WIDTH, scale=1e-4)
    net.tensor("pos_embed", 1, 5, WIDTH, scale=1e-4)
    expected = torch_vit(net, 1e-12).numpy()
    state: dict[str, Any] = {}
    for name, value in net.state.items():
        if ".qkv." in name:
            holder, _, kind = name.replace("blocks.", "encoder.layer.").partition(".attn.qkv.")
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            state |= {f"vit.{holder}.attention.attention.{part}.{kind}": chunk for part, chunk in parts}
            continue
        for ours, theirs in HUGGING_FACE:
            name = name.replace(ours, theirs)
        state[name if name.startswith("classifier") else f"vit.{name}"] = value
    state = {name.replace("vit.norm.", "vit.layernorm."): value for name, value in state.items()}
    model = make_vit(nnx.Rngs(0))
    report = load_torch(model, state)
    assert (report.missing, report.unused, model.epsilon) == ((), (), 1e-12)
    np.testing.assert_allclose(model(jnp.asarray(IMAGES)), expected, atol=1e-5 * np.abs(expected).max())
    save_torch_state_dict(model, tmp_path / "model.safetensors", like=report)
    again = make_vit(nnx.Rngs(1))
    load_torch(again, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again(jnp.asarray(IMAGES)), model(jnp.asarray(IMAGES)))
    model.epsilon = 1e-6
    assert np.abs(model(jnp.asarray(IMAGES)) - expected).max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_embeddings_and_heads_are_no_part_of_the_body(name):
    model = nnx.eval_shape(lambda: CASES[name][0](nnx.Rngs(0)))
    where = body_kernels(model)
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    chosen = {path for path, leaf in flat if where("/".join(map(str, path)), leaf.get_value())}
    outside = {path[0] for path, _ in flat} - {path[0] for path in chosen}
    assert (
        outside
        == {
            "vit": {"patch_embed", "cls_token", "pos_embed", "norm", "head"},
            "gpt": {"wte", "wpe", "ln_f"},
            "bert": {"embeddings", "pooler", "classifier"},
        }[name]
    )
    assert len(chosen) == (12 if name == "bert" else 8)


def size(model: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda rngs: vit("tiny", rngs=rngs), 5_717_416),
        (lambda rngs: vit("small", rngs=rngs), 22_050_664),
        (lambda rngs: vit("base", rngs=rngs), 86_567_656),
        (lambda rngs: GPT(rngs=rngs), 124_439_808),
        (lambda rngs: Bert(rngs=rngs), 109_483_778),
    ],
)
def test_parameter_counts_are_the_published_ones(make, count):
    assert size(nnx.eval_shape(lambda: make(nnx.Rngs(0)))) == count


def test_a_decoder_does_not_look_ahead():
    model = make_gpt(nnx.Rngs(0))
    other = jnp.asarray(TOKENS).at[:, 3:].set(0)
    np.testing.assert_allclose(model(jnp.asarray(TOKENS))[:, :3], model(other)[:, :3], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rngs: vit("huge", rngs=rngs), "vit: size has value 'huge'; expected one of 'tiny'"),
        (lambda rngs: vit("tiny", image_size=(30, 32), rngs=rngs), r"image_size has value \(30, 32\); .*16 pixels"),
        (lambda rngs: ViT(width=10, depth=1, heads=3, rngs=rngs), "ViT: heads has value 3; expected a divisor"),
        (lambda rngs: GPT(width=10, heads=3, rngs=rngs), "GPT: heads has value 3"),
        (lambda rngs: Bert(width=10, heads=3, rngs=rngs), "Bert: heads has value 3"),
        (lambda rngs: make_gpt(rngs)(jnp.zeros((1, 9), int)), r"GPT: tokens has shape \(1, 9\)"),
        (lambda rngs: make_bert(rngs)(jnp.zeros((1, 9), int)), r"Bert: tokens has shape \(1, 9\)"),
        (lambda rngs: make_vit(rngs)(jnp.zeros((1, 4, 8, 3))), r"ViT: images has shape \(1, 4, 8, 3\)"),
    ],
)
def test_impossible_sizes_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def test_the_checkpoint_decides_the_stem():
    block = {"layer1.0.conv1.weight": np.ones((64, 64, 3, 3))}
    assert stem_of_torch({"module.conv1.weight": np.ones((64, 3, 7, 7))} | block) == "imagenet"
    assert stem_of_torch({"conv1.weight": np.ones((64, 3, 3, 3))} | block) == "small"
    mobile = {"conv1.weight": np.ones((32, 3, 3, 3)), "blocks.0.depthwise.weight": np.ones((32, 1, 3, 3))}
    assert stem_of_torch(mobile) is None
