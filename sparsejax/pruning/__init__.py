"""Pruning as Optax transforms: wrap any optimizer, keep weights outside a mask at exactly zero."""

from sparsejax._surface import attributes
from sparsejax.pruning import accounting, allocation, methods, schedules, scores
from sparsejax.pruning._apply import check, forward_params, init, prune, recalibrate
from sparsejax.pruning._filters import Filter, is_kernel, path
from sparsejax.pruning._masks import (
    Overlap,
    dead_units,
    mask_from_scores,
    mask_from_zeros,
    overlap,
    project,
    rescale_by_density,
    shuffle_within_layers,
    sparsity_of,
)
from sparsejax.pruning._method import Method, View
from sparsejax.pruning._state import Change, PackedMask, PrunedState, get_mask, metrics
from sparsejax.pruning._storage import CompressedState, Indices, compress, decompress, expand, stored
from sparsejax.pruning._wrapper import pruned
from sparsejax.pruning.accounting import PruningReport, report
from sparsejax.pruning.allocation import (
    across,
    block,
    channel,
    erk,
    n_of_m,
    per_layer,
    row_balanced,
    uniform,
    unstructured,
)
from sparsejax.pruning.methods import *  # noqa: F403 (methods/__init__.py lists them)

__all__ = [
    "Change",
    "CompressedState",
    "Filter",
    "Indices",
    "Method",
    "Overlap",
    "PackedMask",
    "PrunedState",
    "PruningReport",
    "View",
    "accounting",
    "across",
    "allocation",
    "block",
    "channel",
    "check",
    "compress",
    "dead_units",
    "decompress",
    "erk",
    "expand",
    "forward_params",
    "get_mask",
    "init",
    "is_kernel",
    "mask_from_scores",
    "mask_from_zeros",
    "methods",
    "metrics",
    "n_of_m",
    "overlap",
    "path",
    "per_layer",
    "project",
    "prune",
    "pruned",
    "recalibrate",
    "report",
    "rescale_by_density",
    "row_balanced",
    "schedules",
    "scores",
    "shuffle_within_layers",
    "sparsity_of",
    "stored",
    "uniform",
    "unstructured",
]
__all__ += methods.__all__

_CADENCE = "the arguments update_every, start, stop of a method"
_RENAMED = {
    "Every": ("sparsejax.pruning.methods._deprecated.Every", _CADENCE),
    "STR": "sparsejax.pruning.SoftThreshold",
    "STRParams": "sparsejax.pruning.SoftThresholdParams",
    "every": ("sparsejax.pruning.methods._deprecated.every", _CADENCE),
    "random_": "sparsejax.pruning.random_pruning",
    "set_": "sparsejax.pruning.sparse_evolutionary_training",
    "str_": "sparsejax.pruning.soft_threshold",
    "Capacity": "sparsejax.pruning.allocation.Capacity",
    "Grid": "sparsejax.pruning.allocation.Grid",
    "LayerShape": "sparsejax.pruning.accounting.LayerShape",
    "OtherOps": "sparsejax.pruning.accounting.OtherOps",
    "Report": "sparsejax.pruning.PruningReport",
    "ReportRow": "sparsejax.pruning.accounting.PruningReportRow",
    "Scope": "sparsejax.pruning.allocation.Scope",
    "Structure": "sparsejax.pruning.allocation.Structure",
    "alternation_cost": "sparsejax.pruning.accounting.alternation_cost",
    "er": "sparsejax.pruning.allocation.er",
    "first_conv": "sparsejax.pruning.accounting.first_conv",
    "forward_flops": "sparsejax.pruning.accounting.forward_flops",
    "global_count": "sparsejax.pruning.allocation.global_count",
    "kernels": "sparsejax.pruning.is_kernel",
    "last_dense": "sparsejax.pruning.accounting.last_dense",
    "layer_shapes": "sparsejax.pruning.accounting.layer_shapes",
    "select": "sparsejax.pruning.allocation.select",
    "storage_bytes": "sparsejax.pruning.accounting.storage_bytes",
    "training_flops": "sparsejax.pruning.accounting.training_flops",
}
__getattr__, __dir__ = attributes(__name__, deprecated=_RENAMED)
