"""Scores from data or from the network itself, for ``mask_from_scores``."""

from sparsejax.pruning.scores._at_initialization import conv_inputs as conv_inputs
from sparsejax.pruning.scores._at_initialization import grasp as grasp
from sparsejax.pruning.scores._at_initialization import snip as snip
from sparsejax.pruning.scores._at_initialization import synflow as synflow
from sparsejax.pruning.scores._at_initialization import wanda as wanda
from sparsejax.pruning.scores._second_order import OBS as OBS
from sparsejax.pruning.scores._second_order import mfac as mfac
from sparsejax.pruning.scores._second_order import obd as obd
from sparsejax.pruning.scores._second_order import woodfisher as woodfisher
