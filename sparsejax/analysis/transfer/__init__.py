"""Tests whether a pruned model still transfers: features, linear and full fine-tuning, and statistics of the results.

Results are a tidy table with one row for each run; every aggregate is a function from that table to another. The
protocol is that of Iofinova, Peste, Kurtz and Alistarh, "How Well Do Sparse ImageNet Models Transfer?" (2022).
"""

from sparsejax._surface import attributes
from sparsejax.analysis.transfer._audit import RunPath, audit_runs, predictions_table, run_outputs
from sparsejax.analysis.transfer._metrics import (
    mean_per_class_accuracy,
    per_class_accuracy,
    relative_error_increase,
    top1_accuracy,
)
from sparsejax.analysis.transfer._plots import (
    plot_datasets,
    plot_difficulty,
    plot_ranks,
    plot_relative_error,
    plot_tasks,
    plot_upstream,
)
from sparsejax.analysis.transfer._plots_cost import pareto_front, plot_pareto
from sparsejax.analysis.transfer.runs._batch_norm import recalibrate_batch_norm
from sparsejax.analysis.transfer.runs._config import SGDConfig
from sparsejax.analysis.transfer.runs._cost import EpochCost, LinearCost, time_linear_epoch
from sparsejax.analysis.transfer.runs._features import Features, extract_features
from sparsejax.analysis.transfer.runs._finetune import FinetuneEpoch, FinetuneResult, finetune, predict
from sparsejax.analysis.transfer.runs._inference import InferenceCost, time_inference
from sparsejax.analysis.transfer.runs._linear import train_linear_online
from sparsejax.analysis.transfer.runs._outputs import RunOutputs, predict_probabilities, read_outputs
from sparsejax.analysis.transfer.runs._probe import C_GRID, ProbeResult, linear_probe
from sparsejax.analysis.transfer.runs._study import Backbone, StudySettings, run_transfer
from sparsejax.analysis.transfer.tables._aggregate import aggregate, aggregate_categories
from sparsejax.analysis.transfer.tables._cells import cells, seed_noise
from sparsejax.analysis.transfer.tables._compare import compare_methods, compare_to_dense, win_tie_loss
from sparsejax.analysis.transfer.tables._ranks import rank_methods
from sparsejax.analysis.transfer.tables._relations import (
    difficulty_correlation,
    regime_agreement,
    task_difficulty,
    upstream_correlation,
)
from sparsejax.analysis.transfer.tables._report import TransferReport, report
from sparsejax.analysis.transfer.tables._results import CATEGORIES, RepeatedRunsWarning, check_results, read_results
from sparsejax.analysis.transfer.tables._signed_rank import holm, wilcoxon_exact

__all__ = [
    "CATEGORIES",
    "C_GRID",
    "Backbone",
    "EpochCost",
    "Features",
    "FinetuneEpoch",
    "FinetuneResult",
    "InferenceCost",
    "LinearCost",
    "ProbeResult",
    "RepeatedRunsWarning",
    "RunOutputs",
    "RunPath",
    "SGDConfig",
    "StudySettings",
    "TransferReport",
    "aggregate",
    "aggregate_categories",
    "audit_runs",
    "cells",
    "check_results",
    "compare_methods",
    "compare_to_dense",
    "difficulty_correlation",
    "extract_features",
    "finetune",
    "holm",
    "linear_probe",
    "mean_per_class_accuracy",
    "pareto_front",
    "per_class_accuracy",
    "plot_datasets",
    "plot_difficulty",
    "plot_pareto",
    "plot_ranks",
    "plot_relative_error",
    "plot_tasks",
    "plot_upstream",
    "predict",
    "predict_probabilities",
    "predictions_table",
    "rank_methods",
    "read_outputs",
    "read_results",
    "recalibrate_batch_norm",
    "regime_agreement",
    "relative_error_increase",
    "report",
    "run_outputs",
    "run_transfer",
    "seed_noise",
    "task_difficulty",
    "time_inference",
    "time_linear_epoch",
    "top1_accuracy",
    "train_linear_online",
    "upstream_correlation",
    "wilcoxon_exact",
    "win_tie_loss",
]

__getattr__, __dir__ = attributes(
    __name__,
    deprecated={"Report": f"{__name__}.TransferReport", "accuracy": f"{__name__}.top1_accuracy"},
)
