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
from sparsejax.pruning.methods._acdc import acdc, dense_partner
from sparsejax.pruning.methods._cadence import Every, every
from sparsejax.pruning.methods._fixed import external, fixed
from sparsejax.pruning.methods._hard_threshold import hard_threshold
from sparsejax.pruning.methods._lottery_tickets import Ticket, lottery_tickets
from sparsejax.pruning.methods._magnitude import magnitude, one_shot
from sparsejax.pruning.methods._mest import mest
from sparsejax.pruning.methods._movement import movement, soft_movement
from sparsejax.pruning.methods._phases import Phase, PhaseList, ShortPhasesWarning, acdc_phases
from sparsejax.pruning.methods._redistribution import granet, snfs
from sparsejax.pruning.methods._scored import random_, saliency
from sparsejax.pruning.methods._soft_threshold import STR, STRParams, str_
from sparsejax.pruning.methods._sparse_training import rigl, set_, static
from sparsejax.pruning.methods._straight_through import straight_through
from sparsejax.pruning.methods._top_kast import top_kast

__all__ = [
    "STR",
    "Change",
    "CompressedState",
    "Every",
    "Filter",
    "Indices",
    "Method",
    "Overlap",
    "PackedMask",
    "Phase",
    "PhaseList",
    "PrunedState",
    "PruningReport",
    "STRParams",
    "ShortPhasesWarning",
    "Ticket",
    "View",
    "accounting",
    "acdc",
    "acdc_phases",
    "across",
    "allocation",
    "block",
    "channel",
    "check",
    "compress",
    "dead_units",
    "decompress",
    "dense_partner",
    "erk",
    "every",
    "expand",
    "external",
    "fixed",
    "forward_params",
    "get_mask",
    "granet",
    "hard_threshold",
    "init",
    "is_kernel",
    "lottery_tickets",
    "magnitude",
    "mask_from_scores",
    "mask_from_zeros",
    "mest",
    "methods",
    "metrics",
    "movement",
    "n_of_m",
    "one_shot",
    "overlap",
    "path",
    "per_layer",
    "project",
    "prune",
    "pruned",
    "random_",
    "recalibrate",
    "report",
    "rescale_by_density",
    "rigl",
    "row_balanced",
    "saliency",
    "schedules",
    "scores",
    "set_",
    "shuffle_within_layers",
    "snfs",
    "soft_movement",
    "sparsity_of",
    "static",
    "stored",
    "str_",
    "straight_through",
    "top_kast",
    "uniform",
    "unstructured",
]

_RENAMED = {
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
