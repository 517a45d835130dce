"""The learners and methods of the study, by name."""

from __future__ import annotations

from typing import Any

from sparsejax.analysis.multisource.learners._adversarial import AdversarialLearner
from sparsejax.analysis.multisource.learners._boosted import BoostedTrees
from sparsejax.analysis.multisource.learners._ensemble import Ensemble
from sparsejax.analysis.multisource.learners._regularised import PlainLearner, RegularisedLearner
from sparsejax.analysis.multisource.learners._resampled import ResampledLearner
from sparsejax.analysis.multisource.learners._robust import RobustLearner
from sparsejax.analysis.multisource.learners._thresholds import PostprocessedLearner
from sparsejax.analysis.multisource.learners._tilted import HierarchicalTERM

LEARNERS = ("none", "reg", "pp", "adv", "resample")
METHODS = ("original", "oracle", "naive", "flea", "konstantinov", "ensemble", "hterm", "dro")
CLASSIFIERS = ("linear", "xgboost")


def learners_of(method: str, classifier: str) -> tuple[str, ...]:
    """Names of the learners that a method of the study goes with.

    Methods that choose a training set go with all of them, on trees with those that need no gradient. "hterm" has its
    own loss, so it goes with learners that wrap another one; "dro" has fairness constraints and counts as "reg".
    """
    if classifier == "xgboost":
        return () if method in ("hterm", "dro") else ("none", "resample")
    return {"hterm": ("none", "pp", "resample"), "dro": ("reg",)}.get(method, LEARNERS)


def make_learner(learner: str, classifier: str = "linear", seed: int = 0) -> Any:
    """Return the learner of the study with this name, on "linear" or "xgboost"."""
    if classifier == "xgboost":
        return BoostedTrees() if learner == "none" else ResampledLearner(BoostedTrees(), random_state=seed)
    return {
        "none": PlainLearner(),
        "reg": RegularisedLearner(),
        "pp": PostprocessedLearner(),
        "adv": AdversarialLearner(),
        "resample": ResampledLearner(random_state=seed),
    }[learner]


def make_method(method: str, learner: str, classifier: str, seed: int, malicious: float, legacy: bool) -> Any:
    """Return what a method trains on its training set; ``malicious`` is the share of manipulated sources."""
    if method == "ensemble":
        return Ensemble(make_learner(learner, classifier, seed))
    if method == "dro":
        return RobustLearner(malicious, legacy=legacy, random_state=seed)
    if method == "hterm":
        term = HierarchicalTERM(legacy=legacy)
        return {
            "none": term,
            "pp": PostprocessedLearner(term),
            "resample": ResampledLearner(term, random_state=seed),
        }[learner]
    return make_learner(learner, classifier, seed)
