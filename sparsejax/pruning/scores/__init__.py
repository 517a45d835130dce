"""Scores from data or from the network itself, for ``mask_from_scores``."""

from sparsejax.pruning.scores._at_initialization import conv_inputs, grasp, snip, synflow, wanda
from sparsejax.pruning.scores._second_order import OBS, mfac, obd, woodfisher

__all__ = ["OBS", "conv_inputs", "grasp", "mfac", "obd", "snip", "synflow", "wanda", "woodfisher"]
