"""Schedules: functions of the optimizer step that return a sparsity."""

from sparsejax.pruning._schedules import constant as constant
from sparsejax.pruning._schedules import cosine as cosine
from sparsejax.pruning._schedules import cubic as cubic
from sparsejax.pruning._schedules import linear as linear
from sparsejax.pruning._schedules import one_shot as one_shot
from sparsejax.pruning._schedules import polynomial as polynomial
from sparsejax.pruning._schedules_more import accelerated_cubic as accelerated_cubic
from sparsejax.pruning._schedules_more import alternating as alternating
from sparsejax.pruning._schedules_more import cosine_drop as cosine_drop
from sparsejax.pruning._schedules_more import exponential as exponential
from sparsejax.pruning._schedules_more import geometric_rounds as geometric_rounds
