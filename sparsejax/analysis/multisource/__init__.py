"""Fair learning when some data sources lie: the FLEA filter, attacks to test it with, learners, and data.

Needs ``pip install 'sparsejax[analysis]'``. Source: Iofinova, Konstantinov, Lampert 2022, "FLEA: Provably Robust Fair
Multisource Learning from Unreliable Training Data", TMLR.
"""

from sparsejax.analysis.multisource._adversaries import (
    ADVERSARIES,
    PAPER_LABELS,
    TrainingSet,
    choose_sources,
    manipulate,
)
from sparsejax.analysis.multisource._classifier import FLEAClassifier
from sparsejax.analysis.multisource.data._loaders import (
    FILES,
    census,
    encode_census,
    encode_table,
    fetch_dataset,
    load_dataset,
)
from sparsejax.analysis.multisource.data._table import Dataset, blocks
from sparsejax.analysis.multisource.filter._base import SourceFilter
from sparsejax.analysis.multisource.filter._flea import FLEA, SourceWarning
from sparsejax.analysis.multisource.filter._konstantinov import KonstantinovFilter
from sparsejax.analysis.multisource.filter._select import quantiles, select
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
    learners_of,
    make_learner,
    make_method,
)
from sparsejax.analysis.multisource.study._metrics import METRICS, evaluate
from sparsejax.analysis.multisource.study._plots import plot_bars, plot_scores
from sparsejax.analysis.multisource.study._run import run_study
from sparsejax.analysis.multisource.study._tables import agreement, compare, summarise, table, worst_case

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
    "Dataset",
    "Ensemble",
    "FLEAClassifier",
    "HierarchicalTERM",
    "KonstantinovFilter",
    "PlainLearner",
    "PostprocessedLearner",
    "RegularisedLearner",
    "ResampledLearner",
    "RobustLearner",
    "SourceFilter",
    "SourceWarning",
    "TrainingSet",
    "agreement",
    "blocks",
    "census",
    "choose_sources",
    "compare",
    "encode_census",
    "encode_table",
    "evaluate",
    "fetch_dataset",
    "learners_of",
    "load_dataset",
    "make_learner",
    "make_method",
    "manipulate",
    "plot_bars",
    "plot_scores",
    "quantiles",
    "reweigh",
    "run_study",
    "select",
    "summarise",
    "table",
    "worst_case",
]
