"""What pruning costs and saves: layers read off a network, operations, bytes, a report before training."""

from sparsejax.pruning.accounting._flops import (
    LayerShape,
    OtherOps,
    alternation_cost,
    first_conv,
    forward_flops,
    last_dense,
    layer_shapes,
    storage_bytes,
    training_flops,
)
from sparsejax.pruning.accounting._report import PruningReport, PruningReportRow, report

__all__ = [
    "LayerShape",
    "OtherOps",
    "PruningReport",
    "PruningReportRow",
    "alternation_cost",
    "first_conv",
    "forward_flops",
    "last_dense",
    "layer_shapes",
    "report",
    "storage_bytes",
    "training_flops",
]
