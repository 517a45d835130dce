"""Sparse training from start to end: phases, checkpoints, metrics, and what a step costs."""

from sparsejax.train._against import AgainstDense as AgainstDense
from sparsejax.train._against import DensePair as DensePair
from sparsejax.train._compare import StepComparison as StepComparison
from sparsejax.train._compare import StepCost as StepCost
from sparsejax.train._compare import compare_steps as compare_steps
from sparsejax.train._config import TrainConfig as TrainConfig
from sparsejax.train._fixed_mask import FixedMask as FixedMask
from sparsejax.train._fixed_mask import fix_masks as fix_masks
from sparsejax.train._loop import Run as Run
from sparsejax.train._loop import train as train
from sparsejax.train._methods import make_plan as make_plan
from sparsejax.train._metrics import PhaseTime as PhaseTime
from sparsejax.train._plan import Phase as Phase
from sparsejax.train._plan import Plan as Plan
from sparsejax.train._progress import Reporter as Reporter
from sparsejax.train._progress import reporter as reporter
from sparsejax.train._restore import load_model as load_model
from sparsejax.train._result import TrainResult as TrainResult
