"""Sparse training from start to end: phases, checkpoints, metrics, and what a step costs."""

from sparsejax._surface import attributes
from sparsejax.train._config import MethodName, TrainConfig
from sparsejax.train._data_parallel import data_parallel
from sparsejax.train._evaluate import Evaluation, Latency, LayerCost, evaluate
from sparsejax.train._finetune import finetune
from sparsejax.train._fixed_mask import FixedMask, KernelChoice, fix_masks
from sparsejax.train._loop import TrainRun, train
from sparsejax.train._paired import AgainstDense, DensePair
from sparsejax.train._rebuild import load_model
from sparsejax.train._saved_forms import save_network
from sparsejax.train._source import Network, load_network
from sparsejax.train._steps import bind_step, evaluate_accuracy, map_batches, train_step
from sparsejax.train.log._epochs import EpochRow, TensorBoardLogger
from sparsejax.train.log._metrics import MetricsRow, PhaseTime
from sparsejax.train.log._progress import Reporter, reporter
from sparsejax.train.plans._methods import make_plan
from sparsejax.train.plans._plan import Plan, TrainPhase
from sparsejax.train.results._result import TrainResult
from sparsejax.train.results._step_cost import StepComparison, StepCost, compare_steps

__all__ = [
    "AgainstDense",
    "DensePair",
    "EpochRow",
    "Evaluation",
    "FixedMask",
    "KernelChoice",
    "Latency",
    "LayerCost",
    "MethodName",
    "MetricsRow",
    "Network",
    "PhaseTime",
    "Plan",
    "Reporter",
    "StepComparison",
    "StepCost",
    "TensorBoardLogger",
    "TrainConfig",
    "TrainPhase",
    "TrainResult",
    "TrainRun",
    "bind_step",
    "compare_steps",
    "data_parallel",
    "evaluate",
    "evaluate_accuracy",
    "finetune",
    "fix_masks",
    "load_model",
    "load_network",
    "make_plan",
    "map_batches",
    "reporter",
    "save_network",
    "train",
    "train_step",
]

__getattr__, __dir__ = attributes(
    __name__, deprecated={"Phase": "sparsejax.train.TrainPhase", "Run": "sparsejax.train.TrainRun"}
)
