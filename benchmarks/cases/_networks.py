"""The networks by name."""

from __future__ import annotations

import argparse
from typing import Any

from ._network import NetworkCase
from ._resnet import ResNetCase
from ._transformer import SIZES, TransformerCase
from ._zoo import ZOO, ZooCase


def make(network: str, **fields: Any) -> NetworkCase:
    """Return the case with these attributes; ``image`` is of ResNets only.

    >>> make("vit-small", batch=8, sparsity=0.9).title
    'vit-small (4 blocks of width 384, 197 tokens)'
    """
    kind = TransformerCase if network in SIZES else ZooCase if network in ZOO else ResNetCase
    return kind(network, **fields)


def from_options(options: argparse.Namespace, sparsity: float, dtype: str = "float32") -> NetworkCase:
    """Return the case that the command line describes."""
    resnet = options.model == "resnet18"
    fields = {"image": options.image} if resnet else {}
    batch = options.batch or (16 if resnet else 8)
    return make(options.model, batch=batch, sparsity=sparsity, dtype=dtype, **fields)
