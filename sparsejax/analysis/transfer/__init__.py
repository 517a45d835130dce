"""Does a pruned model still transfer: features, linear and full fine-tuning, and the analysis of a study's results.

Runs go in a tidy table, one row for each; every aggregate is a function from that table to another. The protocol and
the questions are those of Iofinova, Peste, Kurtz and Alistarh, "How Well Do Sparse ImageNet Models Transfer?" (2022).
"""

from sparsejax.analysis.transfer._metrics import accuracy as accuracy
from sparsejax.analysis.transfer._metrics import mean_per_class_accuracy as mean_per_class_accuracy
from sparsejax.analysis.transfer._metrics import per_class_accuracy as per_class_accuracy
from sparsejax.analysis.transfer._metrics import relative_error_increase as relative_error_increase
from sparsejax.analysis.transfer._plots import plot_datasets as plot_datasets
from sparsejax.analysis.transfer._plots import plot_difficulty as plot_difficulty
from sparsejax.analysis.transfer._plots import plot_ranks as plot_ranks
from sparsejax.analysis.transfer._plots import plot_relative_error as plot_relative_error
from sparsejax.analysis.transfer._plots import plot_tasks as plot_tasks
from sparsejax.analysis.transfer._plots import plot_upstream as plot_upstream
from sparsejax.analysis.transfer.runs._batch_norm import recalibrate_batch_norm as recalibrate_batch_norm
from sparsejax.analysis.transfer.runs._config import SGDConfig as SGDConfig
from sparsejax.analysis.transfer.runs._cost import EpochCost as EpochCost
from sparsejax.analysis.transfer.runs._cost import LinearCost as LinearCost
from sparsejax.analysis.transfer.runs._cost import time_linear_epoch as time_linear_epoch
from sparsejax.analysis.transfer.runs._features import Features as Features
from sparsejax.analysis.transfer.runs._features import extract_features as extract_features
from sparsejax.analysis.transfer.runs._finetune import FinetuneResult as FinetuneResult
from sparsejax.analysis.transfer.runs._finetune import finetune as finetune
from sparsejax.analysis.transfer.runs._finetune import predict as predict
from sparsejax.analysis.transfer.runs._linear import train_linear_online as train_linear_online
from sparsejax.analysis.transfer.runs._probe import C_GRID as C_GRID
from sparsejax.analysis.transfer.runs._probe import ProbeResult as ProbeResult
from sparsejax.analysis.transfer.runs._probe import linear_probe as linear_probe
from sparsejax.analysis.transfer.runs._study import Backbone as Backbone
from sparsejax.analysis.transfer.runs._study import StudySettings as StudySettings
from sparsejax.analysis.transfer.runs._study import run_transfer as run_transfer
from sparsejax.analysis.transfer.tables._aggregate import aggregate as aggregate
from sparsejax.analysis.transfer.tables._aggregate import aggregate_categories as aggregate_categories
from sparsejax.analysis.transfer.tables._cells import cells as cells
from sparsejax.analysis.transfer.tables._cells import seed_noise as seed_noise
from sparsejax.analysis.transfer.tables._compare import compare_methods as compare_methods
from sparsejax.analysis.transfer.tables._compare import compare_to_dense as compare_to_dense
from sparsejax.analysis.transfer.tables._compare import win_tie_loss as win_tie_loss
from sparsejax.analysis.transfer.tables._ranks import rank_methods as rank_methods
from sparsejax.analysis.transfer.tables._relations import difficulty_correlation as difficulty_correlation
from sparsejax.analysis.transfer.tables._relations import regime_agreement as regime_agreement
from sparsejax.analysis.transfer.tables._relations import task_difficulty as task_difficulty
from sparsejax.analysis.transfer.tables._relations import upstream_correlation as upstream_correlation
from sparsejax.analysis.transfer.tables._report import Report as Report
from sparsejax.analysis.transfer.tables._report import report as report
from sparsejax.analysis.transfer.tables._results import CATEGORIES as CATEGORIES
from sparsejax.analysis.transfer.tables._results import RepeatedRunsWarning as RepeatedRunsWarning
from sparsejax.analysis.transfer.tables._results import check_results as check_results
from sparsejax.analysis.transfer.tables._results import read_results as read_results
from sparsejax.analysis.transfer.tables._signed_rank import holm as holm
from sparsejax.analysis.transfer.tables._signed_rank import wilcoxon_exact as wilcoxon_exact
