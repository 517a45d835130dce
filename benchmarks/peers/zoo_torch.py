"""The zoo's transformers in PyTorch, dense: Hugging Face's own code."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from sparsejax.models import GPT, ViT, load_torch, save_torch_state_dict

from ..cases._network import Trainer
from ..cases._zoo import ZooCase
from ._peer import missing
from ._torch_trainer import read, trainer


def unsupported() -> str | None:
    """Return why there is no Hugging Face library, or None."""
    return missing("transformers", "pip install transformers")


def network(case: ZooCase) -> Any:
    """The network of this case in PyTorch: a module from inputs to logits."""
    transformers: Any = importlib.import_module("transformers")
    model: Any = nnx.eval_shape(lambda: case.build(plain=True))
    if isinstance(model, ViT):
        width, block = model.norm.num_features, model.blocks[0]
        vit = transformers.ViTConfig(
            hidden_size=width,
            num_hidden_layers=len(model.blocks),
            num_attention_heads=block.attn.heads,
            intermediate_size=block.mlp.fc1.out_features,
            image_size=model.image_size[0],
            patch_size=model.patch_embed.proj.kernel_size[0],
            num_channels=model.in_features,
            layer_norm_eps=model.epsilon,
            **_labels(model.head),
        )
        return transformers.ViTForImageClassification(vit)
    if isinstance(model, GPT):
        gpt = transformers.GPT2Config(
            vocab_size=model.wte.num_embeddings,
            n_positions=model.length,
            n_embd=model.wte.features,
            n_layer=len(model.h),
            n_head=model.h[0].attn.heads,
            use_cache=False,
        )
        return transformers.GPT2LMHeadModel(gpt)
    embeddings, layer = model.embeddings.word_embeddings, model.encoder.layer[0]
    bert = transformers.BertConfig(
        vocab_size=embeddings.num_embeddings,
        hidden_size=embeddings.features,
        num_hidden_layers=len(model.encoder.layer),
        num_attention_heads=getattr(layer.attention, "self").heads,  # noqa: B009
        intermediate_size=layer.intermediate.dense.out_features,
        max_position_embeddings=model.length,
        **_labels(model.classifier),
    )
    return transformers.BertForSequenceClassification(bert)


def _labels(classifier: nnx.Linear) -> dict[str, Any]:
    return {"num_labels": classifier.out_features}  # an option that the signatures of the library do not show


def dense(case: ZooCase, precision: str) -> Trainer:
    """Train the dense network; its logits are one row per label."""
    import torch

    net = network(case).eval()  # no dropout; nothing else depends on the mode
    net.register_forward_hook(lambda net, inputs, output: output.logits.flatten(0, -2))
    names = [name for name, _ in net.named_parameters()]
    report = load_torch(case.build(plain=True), net.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        save_torch_state_dict(case.model(), path, like=report)
        values = torch.load(path)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(values[name])

    def momenta(of: Callable[[str], Any]) -> dict[str, np.ndarray]:
        model = case.build(plain=True)
        load_torch(model, {name: read(of(name)) for name in names})
        state = nnx.to_flat_state(nnx.state(model, nnx.Param))
        return {"/".join(map(str, path)): np.asarray(value[...]) for path, value in state}

    inputs = case.inputs if case.kind.vocabulary else np.moveaxis(case.inputs, -1, 1).copy()
    return trainer(net, torch.from_numpy(inputs), case.labels.reshape(-1), momenta, precision)
