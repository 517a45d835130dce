"""Sparse training from start to end: phases, checkpoints, metrics, and what a step costs."""

from sparsejax.train._against import AgainstDense as AgainstDense
from sparsejax.train._against import DensePair as DensePair
from sparsejax.train._config import TrainConfig as TrainConfig
from sparsejax.train._fixed_mask import FixedMask as FixedMask
from sparsejax.train._fixed_mask import fix_masks as fix_masks
from sparsejax.train._loop import Run as Run
from sparsejax.train._loop import train as train
from sparsejax.train._restore import load_model as load_model
from sparsejax.train.log._metrics import PhaseTime as PhaseTime
from sparsejax.train.log._progress import Reporter as Reporter
from sparsejax.train.log._progress import reporter as reporter
from sparsejax.train.plans._methods import make_plan as make_plan
from sparsejax.train.plans._plan import Phase as Phase
from sparsejax.train.plans._plan import Plan as Plan
from sparsejax.train.results._result import TrainResult as TrainResult
from sparsejax.train.results._step_cost import StepComparison as StepComparison
from sparsejax.train.results._step_cost import StepCost as StepCost
from sparsejax.train.results._step_cost import compare_steps as compare_steps
