"""The learners and methods of the study, by name."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from sparsejax._checks import fail
from sparsejax.analysis._arrays import read_number
from sparsejax.analysis.multisource.learners._adversarial import AdversarialLearner
from sparsejax.analysis.multisource.learners._base import CLIP
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
DISTANCES = ("disc", "disp", "disb")
# FLEA with each subset of the distances; without any, all sources are as good and the first are kept.
ABLATIONS = {
    f"flea[{'+'.join(chosen) or 'none'}]": chosen
    for size in range(4)
    for chosen in itertools.combinations(DISTANCES, size)
}
_DEFECTIVE = ("hterm", "dro")  # as published; see HierarchicalTERM and RobustLearner


class Hyperparameters(NamedTuple):
    """Settings of the learners, fixed as in the study.

    Attributes:
      eta: weight of fairness, of `RegularisedLearner` and `AdversarialLearner`.
      l2: penalty of `PlainLearner` (also inside others) and `HierarchicalTERM`.
      t: tilt over sources of `HierarchicalTERM`.
      tau: tilt over groups of `HierarchicalTERM`.
    """

    eta: float = 0.5
    l2: float = 0.0
    t: float = -2.0
    tau: float = 2.0


PUBLISHED = Hyperparameters()
_TILTS = ("t", "tau")


def check_hyperparameters(function: str, chosen: Hyperparameters) -> None:
    """Refuse settings that no learner can use.

    >>> check_hyperparameters("f", Hyperparameters(tau=0.0))
    Traceback (most recent call last):
    ...
    ValueError: f: tau has value 0; expected a finite number other than 0.
    """
    for name, value in chosen._asdict().items():
        number = read_number(function, name, value)
        if not math.isfinite(number) or (number == 0 if name in _TILTS else number < 0):
            expected = "a finite number other than 0" if name in _TILTS else "a finite number, at least 0"
            fail(function, name, f"value {number:g}", expected)


def version_of(method: str, legacy: bool) -> str:
    """Return "corrected" for a method that differs from the published one by a correction, else "".

    >>> version_of("dro", legacy=False), version_of("dro", legacy=True), version_of("flea", legacy=False)
    ('corrected', '', '')
    """
    return "corrected" if method in _DEFECTIVE and not legacy else ""


def learners_of(method: str, classifier: str) -> tuple[str, ...]:
    """Names of the learners that a method of the study goes with.

    Methods that choose a training set go with all of them, on trees with those that need no gradient. "hterm" has its
    own loss, so it goes with learners that wrap another one; "dro" has fairness constraints and counts as "reg".
    """
    if classifier == "xgboost":
        return () if method in ("hterm", "dro") else ("none", "resample")
    return {"hterm": ("none", "pp", "resample"), "dro": ("reg",)}.get(method, LEARNERS)


def make_learner(
    learner: str, classifier: str = "linear", seed: int = 0, hyperparameters: Hyperparameters = PUBLISHED
) -> Any:
    """Return the learner of the study with this name, on "linear" or "xgboost"."""
    if classifier == "xgboost":
        return BoostedTrees() if learner == "none" else ResampledLearner(BoostedTrees(), random_state=seed)
    eta, l2, *_ = hyperparameters
    return {
        "none": PlainLearner(l2=l2),
        "reg": RegularisedLearner(eta=eta),
        "pp": PostprocessedLearner(PlainLearner(l2=l2)),
        "adv": AdversarialLearner(eta=eta),
        "resample": ResampledLearner(PlainLearner(l2=l2), random_state=seed),
    }[learner]


def make_method(
    method: str,
    learner: str,
    classifier: str,
    seed: int,
    malicious: float,
    legacy: bool,
    hyperparameters: Hyperparameters = PUBLISHED,
) -> Any:
    """Return what a method trains on its training set; ``malicious`` is the share of manipulated sources."""
    if method == "ensemble":
        return Ensemble(make_learner(learner, classifier, seed, hyperparameters))
    if method == "dro":
        return RobustLearner(malicious, legacy=legacy, random_state=seed)
    if method == "hterm":
        _, l2, t, tau = hyperparameters
        term = HierarchicalTERM(tau, t, l2, legacy=legacy)
        return {
            "none": term,
            "pp": PostprocessedLearner(term, clip=CLIP if legacy else None),
            "resample": ResampledLearner(term, random_state=seed),
        }[learner]
    return make_learner(learner, classifier, seed, hyperparameters)
