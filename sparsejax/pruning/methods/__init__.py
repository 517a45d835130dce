"""Pruning methods, one file per family. To add one: write it, import it here, and add its row to docs/concepts.md."""

from sparsejax.pruning.methods._acdc import Phase as Phase
from sparsejax.pruning.methods._acdc import PhaseList as PhaseList
from sparsejax.pruning.methods._acdc import ShortPhasesWarning as ShortPhasesWarning
from sparsejax.pruning.methods._acdc import acdc as acdc
from sparsejax.pruning.methods._acdc import acdc_phases as acdc_phases
from sparsejax.pruning.methods._acdc import dense_partner as dense_partner
from sparsejax.pruning.methods._fixed import external as external
from sparsejax.pruning.methods._fixed import fixed as fixed
from sparsejax.pruning.methods._fixed import static as static
from sparsejax.pruning.methods._gradual import magnitude as magnitude
from sparsejax.pruning.methods._gradual import one_shot as one_shot
from sparsejax.pruning.methods._gradual import random_pruning as random_pruning
from sparsejax.pruning.methods._gradual import saliency as saliency
from sparsejax.pruning.methods._learned import SoftThreshold as SoftThreshold
from sparsejax.pruning.methods._learned import SoftThresholdParams as SoftThresholdParams
from sparsejax.pruning.methods._learned import movement as movement
from sparsejax.pruning.methods._learned import soft_movement as soft_movement
from sparsejax.pruning.methods._learned import soft_threshold as soft_threshold
from sparsejax.pruning.methods._lottery_tickets import Ticket as Ticket
from sparsejax.pruning.methods._lottery_tickets import lottery_tickets as lottery_tickets
from sparsejax.pruning.methods._redistribution import granet as granet
from sparsejax.pruning.methods._redistribution import snfs as snfs
from sparsejax.pruning.methods._sparse_training import mest as mest
from sparsejax.pruning.methods._sparse_training import rigl as rigl
from sparsejax.pruning.methods._sparse_training import sparse_evolutionary_training as sparse_evolutionary_training
from sparsejax.pruning.methods._straight_through import hard_threshold as hard_threshold
from sparsejax.pruning.methods._straight_through import straight_through as straight_through
from sparsejax.pruning.methods._straight_through import top_kast as top_kast

# The names imported above, so that a method is registered by its import alone.
__all__ = [name for name in sorted(globals()) if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
