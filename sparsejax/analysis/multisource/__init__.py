"""Fair learning from sources of which some are manipulated: the FLEA filter, attacks, learners, and data.

Needs ``pip install 'sparsejax[all]'``. Source: Iofinova, Konstantinov, Lampert 2022, "FLEA: Provably Robust Fair
Multisource Learning from Unreliable Training Data", TMLR.
"""

from sparsejax._surface import attributes
from sparsejax.analysis.multisource._adversaries import (
    ADVERSARIES,
    PAPER_LABELS,
    TrainingSet,
    choose_sources,
    manipulate,
)
from sparsejax.analysis.multisource._classifier import FLEAClassifier
from sparsejax.analysis.multisource.data._census import census
from sparsejax.analysis.multisource.data._loaders import (
    FILES,
    encode_census,
    encode_table,
    fetch_dataset,
    load_dataset,
)
from sparsejax.analysis.multisource.data._table import TabularDataset, assign_sources
from sparsejax.analysis.multisource.data._user_table import load_table
from sparsejax.analysis.multisource.filter._base import SourceFilter
from sparsejax.analysis.multisource.filter._flea import FLEA, SourceWarning
from sparsejax.analysis.multisource.filter._konstantinov import KonstantinovFilter
from sparsejax.analysis.multisource.filter._select import quantiles, select_sources
from sparsejax.analysis.multisource.html._filter_report import write_filter_report
from sparsejax.analysis.multisource.learners._adversarial import AdversarialLearner
from sparsejax.analysis.multisource.learners._boosted import BoostedTrees
from sparsejax.analysis.multisource.learners._ensemble import Ensemble
from sparsejax.analysis.multisource.learners._regularised import PlainLearner, RegularisedLearner
from sparsejax.analysis.multisource.learners._resampled import ResampledLearner, reweigh
from sparsejax.analysis.multisource.learners._robust import RobustLearner
from sparsejax.analysis.multisource.learners._thresholds import PostprocessedLearner
from sparsejax.analysis.multisource.learners._tilted import HierarchicalTERM
from sparsejax.analysis.multisource.study._methods import (
    CLASSIFIERS,
    LEARNERS,
    METHODS,
    Hyperparameters,
    learners_of,
    make_learner,
    make_method,
)
from sparsejax.analysis.multisource.study._metrics import METRICS, evaluate_decisions
from sparsejax.analysis.multisource.study._plots import plot_bars, plot_scores
from sparsejax.analysis.multisource.study._run import run_study
from sparsejax.analysis.multisource.study._tables import (
    agreement,
    compare_published,
    results_table,
    summarise,
    worst_case,
)

__all__ = [
    "ADVERSARIES",
    "CLASSIFIERS",
    "FILES",
    "FLEA",
    "LEARNERS",
    "METHODS",
    "METRICS",
    "PAPER_LABELS",
    "AdversarialLearner",
    "BoostedTrees",
    "Ensemble",
    "FLEAClassifier",
    "HierarchicalTERM",
    "Hyperparameters",
    "KonstantinovFilter",
    "PlainLearner",
    "PostprocessedLearner",
    "RegularisedLearner",
    "ResampledLearner",
    "RobustLearner",
    "SourceFilter",
    "SourceWarning",
    "TabularDataset",
    "TrainingSet",
    "agreement",
    "assign_sources",
    "census",
    "choose_sources",
    "compare_published",
    "encode_census",
    "encode_table",
    "evaluate_decisions",
    "fetch_dataset",
    "learners_of",
    "load_dataset",
    "load_table",
    "make_learner",
    "make_method",
    "manipulate",
    "plot_bars",
    "plot_scores",
    "quantiles",
    "results_table",
    "reweigh",
    "run_study",
    "select_sources",
    "summarise",
    "worst_case",
    "write_filter_report",
]

__getattr__, __dir__ = attributes(
    __name__,
    deprecated={
        "Dataset": f"{__name__}.TabularDataset",
        "blocks": f"{__name__}.assign_sources",
        "compare": f"{__name__}.compare_published",
        "evaluate": f"{__name__}.evaluate_decisions",
        "select": f"{__name__}.select_sources",
        "table": f"{__name__}.results_table",
    },
)
