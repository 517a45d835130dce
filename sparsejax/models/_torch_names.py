"""How torchvision, timm and Hugging Face name the networks of the zoo, as rules from their names to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), new) for pattern, new in pairs)


# Each rule replaces what it matches; all rules of a family are applied in turn.
FAMILIES: dict[str, Rules] = {
    "Hugging Face ResNet": _rules(
        (r"^embedder\.embedder\.convolution\.", "conv1."),
        (r"^embedder\.embedder\.normalization\.", "bn1."),
        *((rf"^encoder\.stages\.{i}\.layers\.", f"layer{i + 1}.") for i in range(4)),
        (r"\.shortcut\.convolution\.", ".downsample.0."),
        (r"\.shortcut\.normalization\.", ".downsample.1."),
        *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
        *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
        (r"^classifier\.1\.", "fc."),
    ),
    "Hugging Face ViT": _rules(
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^encoder\.layer\.", "blocks."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ),
    "Hugging Face ViT (transformers 5)": _rules(
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layers\.", "blocks."),
        (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ),
    "torchvision ViT": _rules(
        (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^encoder\.layers\.encoder_layer_", "blocks."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
        (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.head\.", "head."),
    ),
    "LayerNorm with gamma and beta": _rules((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
    "RigL stem": _rules((r"^initial_conv\.", "conv1.")),
}

# How projections of attention are called, beside the layer that holds them.
_ROLES = {
    "qkv": ("qkv", "in_proj", "c_attn", "Wqkv", "query_key_value"),
    "query": ("query", "q", "q_proj", "q_lin", "to_q", "self.query", "attention.query"),
    "key": ("key", "k", "k_proj", "k_lin", "to_k", "self.key", "attention.key"),
    "value": ("value", "v", "v_proj", "v_lin", "to_v", "self.value", "attention.value"),
    "out": ("out", "proj", "out_proj", "o_proj", "c_proj", "out_lin", "to_out", "output.dense"),
}
_ROLE_OF = {alias: role for role, aliases in _ROLES.items() for alias in aliases}
_ALIASES = "|".join(re.escape(alias) for alias in sorted(_ROLE_OF, key=len))
_PROJECTION = re.compile(rf"(?P<holder>(?:.+\.)?)(?P<alias>{_ALIASES})[._](?P<kind>weight|bias)")
_TRANSPOSED = re.compile(r"(?:.+\.)?(?:c_attn|c_proj|c_fc|q_attn)\.weight")
# Constants that are stored beside the weights.
_BUFFER = re.compile(r"(?:.+\.)?(?:num_batches_tracked|position_ids|token_type_ids|attn\.masked_bias)")
_CAUSAL_MASK = re.compile(r"(?:.+\.)?attn\.bias")


def translate(name: str, rules: Rules) -> str:
    """Return a name after all rules of a family.

    >>> translate("encoder.stages.1.layers.0.layer.2.convolution.weight", FAMILIES["Hugging Face ResNet"])
    'layer2.0.conv3.weight'
    """
    for pattern, new in rules:
        name = pattern.sub(new, name)
    return name


def projection(name: str) -> tuple[str, str, str] | None:
    """Return what holds a projection of attention, its role (qkv, query, key, value, out) and weight or bias; or None.

    >>> projection("blocks.0.attn.q_proj.weight"), projection("fc.weight")
    (('blocks.0.attn.', 'query', 'weight'), None)
    """
    match = _PROJECTION.fullmatch(name)
    return (match["holder"], _ROLE_OF[match["alias"]], match["kind"]) if match else None


def is_buffer(name: str, rank: int) -> bool:
    """Tell whether an entry is a constant that no variable of ours stands for."""
    return _BUFFER.fullmatch(name) is not None or (rank == 4 and _CAUSAL_MASK.fullmatch(name) is not None)


def may_be_transposed(name: str) -> bool:
    """Tell whether GPT-2's files at Hugging Face store this matrix as (in, out)."""
    return _TRANSPOSED.fullmatch(name) is not None


def stores_transposed(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> bool:
    """Tell whether a file stores GPT-2's matrices as (in, out), by the shape of its fused projection.

    >>> stores_transposed([("h.0.attn.c_attn.weight", (8, 24))])
    True
    """
    return any(
        len(shape) == 2 and shape[1] == 3 * shape[0]
        for name, shape in shapes
        if name.endswith("c_attn.weight") and may_be_transposed(name)
    )
