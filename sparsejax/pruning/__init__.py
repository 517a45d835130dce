"""Pruning as Optax transforms: wrap any optimizer, keep weights outside a mask at exactly zero."""

from sparsejax._surface import attributes
from sparsejax.pruning import methods as methods
from sparsejax.pruning import schedules as schedules
from sparsejax.pruning import scores as scores
from sparsejax.pruning._apply import check as check
from sparsejax.pruning._apply import forward_params as forward_params
from sparsejax.pruning._apply import init as init
from sparsejax.pruning._apply import prune as prune
from sparsejax.pruning._capacity import Capacity as Capacity
from sparsejax.pruning._filters import Filter as Filter
from sparsejax.pruning._filters import kernels as kernels
from sparsejax.pruning._filters import path as path
from sparsejax.pruning._masks import mask_from_zeros as mask_from_zeros
from sparsejax.pruning._masks import sparsity_of as sparsity_of
from sparsejax.pruning._method import Method as Method
from sparsejax.pruning._method import View as View
from sparsejax.pruning._packed import PackedMask as PackedMask
from sparsejax.pruning._recalibrate import recalibrate as recalibrate
from sparsejax.pruning._state import Change as Change
from sparsejax.pruning._state import PrunedState as PrunedState
from sparsejax.pruning._state import get_mask as get_mask
from sparsejax.pruning._state import metrics as metrics
from sparsejax.pruning._storage import CompressedState as CompressedState
from sparsejax.pruning._storage import Indices as Indices
from sparsejax.pruning._storage import compress as compress
from sparsejax.pruning._storage import decompress as decompress
from sparsejax.pruning._storage import expand as expand
from sparsejax.pruning._storage import stored as stored
from sparsejax.pruning._wrapper import pruned as pruned
from sparsejax.pruning.accounting._flops import LayerShape as LayerShape
from sparsejax.pruning.accounting._flops import OtherOps as OtherOps
from sparsejax.pruning.accounting._flops import alternation_cost as alternation_cost
from sparsejax.pruning.accounting._flops import forward_flops as forward_flops
from sparsejax.pruning.accounting._flops import storage_bytes as storage_bytes
from sparsejax.pruning.accounting._flops import training_flops as training_flops
from sparsejax.pruning.accounting._layers import first_conv as first_conv
from sparsejax.pruning.accounting._layers import last_dense as last_dense
from sparsejax.pruning.accounting._layers import layer_shapes as layer_shapes
from sparsejax.pruning.accounting._report import Report as Report
from sparsejax.pruning.accounting._report import ReportRow as ReportRow
from sparsejax.pruning.accounting._report import report as report
from sparsejax.pruning.allocation._distributions import er as er
from sparsejax.pruning.allocation._distributions import erk as erk
from sparsejax.pruning.allocation._distributions import global_count as global_count
from sparsejax.pruning.allocation._distributions import uniform as uniform
from sparsejax.pruning.allocation._from_scores import Overlap as Overlap
from sparsejax.pruning.allocation._from_scores import dead_units as dead_units
from sparsejax.pruning.allocation._from_scores import mask_from_scores as mask_from_scores
from sparsejax.pruning.allocation._from_scores import overlap as overlap
from sparsejax.pruning.allocation._from_scores import project as project
from sparsejax.pruning.allocation._from_scores import rescale_by_density as rescale_by_density
from sparsejax.pruning.allocation._from_scores import shuffle_within_layers as shuffle_within_layers
from sparsejax.pruning.allocation._scopes import Scope as Scope
from sparsejax.pruning.allocation._scopes import across as across
from sparsejax.pruning.allocation._scopes import per_layer as per_layer
from sparsejax.pruning.allocation._selection import select as select
from sparsejax.pruning.allocation._structures import Grid as Grid
from sparsejax.pruning.allocation._structures import Structure as Structure
from sparsejax.pruning.allocation._structures import block as block
from sparsejax.pruning.allocation._structures import channel as channel
from sparsejax.pruning.allocation._structures import n_of_m as n_of_m
from sparsejax.pruning.allocation._structures import row_balanced as row_balanced
from sparsejax.pruning.allocation._structures import unstructured as unstructured
from sparsejax.pruning.methods import Phase as Phase
from sparsejax.pruning.methods import PhaseList as PhaseList
from sparsejax.pruning.methods import ShortPhasesWarning as ShortPhasesWarning
from sparsejax.pruning.methods import SoftThreshold as SoftThreshold
from sparsejax.pruning.methods import SoftThresholdParams as SoftThresholdParams
from sparsejax.pruning.methods import Ticket as Ticket
from sparsejax.pruning.methods import acdc as acdc
from sparsejax.pruning.methods import acdc_phases as acdc_phases
from sparsejax.pruning.methods import dense_partner as dense_partner
from sparsejax.pruning.methods import external as external
from sparsejax.pruning.methods import fixed as fixed
from sparsejax.pruning.methods import granet as granet
from sparsejax.pruning.methods import hard_threshold as hard_threshold
from sparsejax.pruning.methods import lottery_tickets as lottery_tickets
from sparsejax.pruning.methods import magnitude as magnitude
from sparsejax.pruning.methods import mest as mest
from sparsejax.pruning.methods import movement as movement
from sparsejax.pruning.methods import one_shot as one_shot
from sparsejax.pruning.methods import random_pruning as random_pruning
from sparsejax.pruning.methods import rigl as rigl
from sparsejax.pruning.methods import saliency as saliency
from sparsejax.pruning.methods import snfs as snfs
from sparsejax.pruning.methods import soft_movement as soft_movement
from sparsejax.pruning.methods import soft_threshold as soft_threshold
from sparsejax.pruning.methods import sparse_evolutionary_training as sparse_evolutionary_training
from sparsejax.pruning.methods import static as static
from sparsejax.pruning.methods import straight_through as straight_through
from sparsejax.pruning.methods import top_kast as top_kast

__getattr__, _ = attributes(
    __name__,
    deprecated={
        "Every": ("sparsejax.pruning.methods._deprecated.Every", "the arguments update_every, start, stop of a method"),
        "STR": "sparsejax.pruning.SoftThreshold",
        "STRParams": "sparsejax.pruning.SoftThresholdParams",
        "every": ("sparsejax.pruning.methods._deprecated.every", "the arguments update_every, start, stop of a method"),
        "random_": "sparsejax.pruning.random_pruning",
        "set_": "sparsejax.pruning.sparse_evolutionary_training",
        "str_": "sparsejax.pruning.soft_threshold",
    },
)
