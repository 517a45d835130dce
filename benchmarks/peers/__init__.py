"""The implementations that are compared, one file each."""

from __future__ import annotations

from collections.abc import Sequence

from sparsejax._checks import fail

from . import deepsparse, ours, sparse_matrices, sparseprop, torch_dense, xla_dense
from ._peer import Call as Call
from ._peer import Peer as Peer
from ._peer import Variant as Variant

OURS = ours.PEER
OURS_BFLOAT16 = ours.BFLOAT16
DENSE = (xla_dense.PEER.name, torch_dense.PEER.name)
DENSE_BFLOAT16 = (torch_dense.BFLOAT16.name, torch_dense.AUTOCAST.name)
PEERS = {
    peer.name: peer
    for peer in (
        xla_dense.PEER,
        torch_dense.PEER,
        torch_dense.BFLOAT16,
        torch_dense.AUTOCAST,
        sparseprop.PEER,
        sparse_matrices.MKL,
        sparse_matrices.TORCH_CSR,
        sparse_matrices.BCSR,
        sparse_matrices.SCIPY,
        deepsparse.PEER,
    )
}


def choose(names: Sequence[str]) -> list[Peer]:
    """Return implementations in the order of their names; all if none is named.

    Raises:
      ValueError: an unknown name.
    """
    for name in names:
        if name not in PEERS:
            fail("bench", "--peers", f"value {name!r}", f"names among {', '.join(PEERS)}")
    return [PEERS[name] for name in names or PEERS]
