"""Scores from data or from the network itself, for ``mask_from_scores``."""

from sparsejax.pruning._at_init import grasp as grasp
from sparsejax.pruning._at_init import snip as snip
from sparsejax.pruning._at_init import synflow as synflow
from sparsejax.pruning._second_order import OBS as OBS
from sparsejax.pruning._second_order import mfac as mfac
from sparsejax.pruning._second_order import obd as obd
from sparsejax.pruning._second_order import woodfisher as woodfisher
from sparsejax.pruning._wanda import conv_inputs as conv_inputs
from sparsejax.pruning._wanda import wanda as wanda
