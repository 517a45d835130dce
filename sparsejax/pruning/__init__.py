"""Pruning as Optax transforms: wrap any optimizer, keep weights outside a mask at exactly zero."""

from sparsejax.pruning import schedules as schedules
from sparsejax.pruning._distributions import global_count as global_count
from sparsejax.pruning._distributions import uniform as uniform
from sparsejax.pruning._filters import Filter as Filter
from sparsejax.pruning._filters import kernels as kernels
from sparsejax.pruning._filters import path as path
from sparsejax.pruning._fixed import fixed as fixed
from sparsejax.pruning._gates import Every as Every
from sparsejax.pruning._gates import every as every
from sparsejax.pruning._magnitude import magnitude as magnitude
from sparsejax.pruning._magnitude import one_shot as one_shot
from sparsejax.pruning._masks import mask_from_zeros as mask_from_zeros
from sparsejax.pruning._masks import sparsity_of as sparsity_of
from sparsejax.pruning._method import Method as Method
from sparsejax.pruning._method import View as View
from sparsejax.pruning._select import select as select
from sparsejax.pruning._state import Change as Change
from sparsejax.pruning._state import PrunedState as PrunedState
from sparsejax.pruning._state import get_mask as get_mask
from sparsejax.pruning._state import metrics as metrics
from sparsejax.pruning._structures import Structure as Structure
from sparsejax.pruning._structures import Unstructured as Unstructured
from sparsejax.pruning._structures import unstructured as unstructured
from sparsejax.pruning._wrapper import init as init
from sparsejax.pruning._wrapper import pruned as pruned
