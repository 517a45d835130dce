"""Schedules: functions of the optimizer step that return a sparsity."""

from sparsejax.pruning._schedules import constant as constant
from sparsejax.pruning._schedules import cosine as cosine
from sparsejax.pruning._schedules import cubic as cubic
from sparsejax.pruning._schedules import linear as linear
from sparsejax.pruning._schedules import one_shot as one_shot
from sparsejax.pruning._schedules import polynomial as polynomial
