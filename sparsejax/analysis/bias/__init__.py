"""Measure which groups lose accuracy after pruning: metrics, criteria and countermeasures, dense against sparse.

Functions take the outputs, labels and groups as arrays and return arrays; none needs a device. Group names are those of
the data, and labels of data sets of people (CelebA among them) are annotations by others, not facts about a person.
"""

from sparsejax._surface import attributes
from sparsejax.analysis.bias.audit._audit import BiasAudit
from sparsejax.analysis.bias.audit._compare import compare
from sparsejax.analysis.bias.audit._table import Table
from sparsejax.analysis.bias.metrics._adapters import OneVsRest, one_vs_rest, to_aif360_groups
from sparsejax.analysis.bias.metrics._amplification import (
    BiasAmplification,
    MeanAmplification,
    bias_amplification,
    marker_bias_amplification,
    mean_amplification,
)
from sparsejax.analysis.bias.metrics._amplification_other import (
    ZhaoAmplification,
    bias_amplification_directional,
    bias_amplification_zhao,
)
from sparsejax.analysis.bias.metrics._flips import FlipCoverage, Flips, flip_coverage, flips
from sparsejax.analysis.bias.metrics._interdependence import interdependence, mean_absolute_correlation
from sparsejax.analysis.bias.metrics._measured import REASONS, Measured
from sparsejax.analysis.bias.metrics._overrides import Overridden, override_predictions
from sparsejax.analysis.bias.metrics._populations import (
    RecallShift,
    Taxicab,
    cie_taxicab,
    class_recall_shift,
    modal_labels,
    pie,
)
from sparsejax.analysis.bias.metrics._rates import (
    GroupRates,
    accuracy,
    auc,
    false_negative_rate,
    false_positive_rate,
    group_rates,
    precision_at_recall,
    predicted_positive_rate,
    rate_gaps,
)
from sparsejax.analysis.bias.metrics._reliability import ReliabilityTable, expected_calibration_error, reliability_table
from sparsejax.analysis.bias.metrics._risk import BiasRisk, bias_risk
from sparsejax.analysis.bias.metrics._systematic import rare_value_ratio, tcb
from sparsejax.analysis.bias.metrics._thresholds import calibrate_thresholds, hard_predictions
from sparsejax.analysis.bias.metrics._uncertainty import (
    SusceptibleSamples,
    susceptible_samples,
    uncertainty,
    uncertainty_score,
)

__all__ = [
    "REASONS",
    "BiasAmplification",
    "BiasAudit",
    "BiasRisk",
    "FlipCoverage",
    "Flips",
    "GroupRates",
    "MeanAmplification",
    "Measured",
    "OneVsRest",
    "Overridden",
    "RecallShift",
    "ReliabilityTable",
    "SusceptibleSamples",
    "Table",
    "Taxicab",
    "ZhaoAmplification",
    "accuracy",
    "auc",
    "bias_amplification",
    "bias_amplification_directional",
    "bias_amplification_zhao",
    "bias_risk",
    "calibrate_thresholds",
    "cie_taxicab",
    "class_recall_shift",
    "compare",
    "expected_calibration_error",
    "false_negative_rate",
    "false_positive_rate",
    "flip_coverage",
    "flips",
    "group_rates",
    "hard_predictions",
    "interdependence",
    "marker_bias_amplification",
    "mean_absolute_correlation",
    "mean_amplification",
    "modal_labels",
    "one_vs_rest",
    "override_predictions",
    "pie",
    "precision_at_recall",
    "predicted_positive_rate",
    "rare_value_ratio",
    "rate_gaps",
    "reliability_table",
    "susceptible_samples",
    "tcb",
    "to_aif360_groups",
    "uncertainty",
    "uncertainty_score",
]

__getattr__, __dir__ = attributes(__name__, deprecated={"Report": "sparsejax.analysis.bias.BiasAudit"})
