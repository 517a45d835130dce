"""The implementations that train a network."""

from __future__ import annotations

from collections.abc import Sequence

from sparsejax._checks import fail

from ..cases._network import NetworkPeer
from . import resnet_flax, resnet_torch

OURS = resnet_flax.OURS
DENSE = resnet_flax.DENSE
PEERS = {peer.name: peer for peer in (DENSE, resnet_torch.DENSE, resnet_torch.SPARSEPROP)}


def choose(names: Sequence[str]) -> list[NetworkPeer]:
    """Return implementations in the order of their names; all if none is named.

    Raises:
      ValueError: an unknown name.
    """
    for name in names:
        if name not in PEERS:
            fail("bench", "--peers", f"value {name!r}", f"names among {', '.join(PEERS)}")
    return [PEERS[name] for name in names or PEERS]
