"""The implementations that train a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from sparsejax._checks import fail

from ..cases._network import NetworkCase, NetworkPeer, Trainer
from ..cases._resnet import ResNetCase
from ..cases._transformer import TransformerCase
from ..cases._zoo import ZooCase
from . import _torch, network_flax, resnet_torch, sparseprop, transformer_torch, zoo_torch
from ._torch_trainer import BFLOAT16, FLOAT32

OURS = network_flax.OURS
DENSE = network_flax.DENSE


def _torch_variants(case: NetworkCase, precisions: Sequence[str]) -> dict[str, Callable[[], Trainer]]:
    """Ways to train the dense network in PyTorch; bfloat16 is fast in channels-last layout only."""
    variants = {}
    for precision in precisions:
        if isinstance(case, TransformerCase):
            variants[precision] = functools.partial(transformer_torch.dense, case, precision)
        elif isinstance(case, ZooCase):
            variants[precision] = functools.partial(zoo_torch.dense, case, precision)
        elif isinstance(case, ResNetCase):
            layouts = ("contiguous", "channels_last") if precision == FLOAT32 else ("channels_last",)
            for layout in layouts:
                variants[f"{precision}, {layout}"] = functools.partial(resnet_torch.dense, case, precision, layout)
    return variants


def _torch_unsupported(case: NetworkCase) -> str | None:
    return zoo_torch.unsupported() if isinstance(case, ZooCase) else None


def _sparseprop_unsupported(case: NetworkCase) -> str | None:
    if not isinstance(case, ResNetCase):
        return "ResNets only"
    return None if case.batch % 8 == 0 else "batch not a multiple of 8, for which it computes something else"


def _sparseprop(case: NetworkCase) -> dict[str, Callable[[], Trainer]]:
    return resnet_torch.sparse(case) if isinstance(case, ResNetCase) else {}


TORCH, TORCH_BFLOAT16 = (
    NetworkPeer(
        name, _torch.absent, _torch_unsupported, functools.partial(_torch_variants, precisions=precisions), dtype
    )
    for name, precisions, dtype in (("torch", (FLOAT32,), "float32"), ("torch_bfloat16", BFLOAT16, "bfloat16"))
)
SPARSEPROP = NetworkPeer("sparseprop", sparseprop.PEER.absent, _sparseprop_unsupported, _sparseprop, "float32")
PEERS = {peer.name: peer for peer in (DENSE, TORCH, TORCH_BFLOAT16, SPARSEPROP)}


def choose(names: Sequence[str]) -> list[NetworkPeer]:
    """Return implementations in the order of their names; all if none is named.

    Raises:
      ValueError: an unknown name.
    """
    for name in names:
        if name not in PEERS:
            fail("bench", "--peers", f"value {name!r}", f"names among {', '.join(PEERS)}")
    return [PEERS[name] for name in names or PEERS]
