"""Whom does pruning fail: metrics, criteria and countermeasures for the outputs of dense and sparse models.

Every function takes arrays and returns arrays; nothing here needs a device. Group names are whatever the data says, and
labels of data sets of people (CelebA among them) are annotations by others, not facts about a person.
"""

from sparsejax.analysis.bias.audit._audit import Report as Report
from sparsejax.analysis.bias.audit._compare import compare as compare
from sparsejax.analysis.bias.audit._table import Table as Table
from sparsejax.analysis.bias.metrics._adapters import OneVsRest as OneVsRest
from sparsejax.analysis.bias.metrics._adapters import one_vs_rest as one_vs_rest
from sparsejax.analysis.bias.metrics._adapters import to_aif360_groups as to_aif360_groups
from sparsejax.analysis.bias.metrics._amplification import BiasAmplification as BiasAmplification
from sparsejax.analysis.bias.metrics._amplification import MeanAmplification as MeanAmplification
from sparsejax.analysis.bias.metrics._amplification import bias_amplification as bias_amplification
from sparsejax.analysis.bias.metrics._amplification import marker_bias_amplification as marker_bias_amplification
from sparsejax.analysis.bias.metrics._amplification import mean_amplification as mean_amplification
from sparsejax.analysis.bias.metrics._amplification_other import ZhaoAmplification as ZhaoAmplification
from sparsejax.analysis.bias.metrics._amplification_other import (
    bias_amplification_directional as bias_amplification_directional,
)
from sparsejax.analysis.bias.metrics._amplification_other import bias_amplification_zhao as bias_amplification_zhao
from sparsejax.analysis.bias.metrics._flips import FlipCoverage as FlipCoverage
from sparsejax.analysis.bias.metrics._flips import Flips as Flips
from sparsejax.analysis.bias.metrics._flips import flip_coverage as flip_coverage
from sparsejax.analysis.bias.metrics._flips import flips as flips
from sparsejax.analysis.bias.metrics._interdependence import interdependence as interdependence
from sparsejax.analysis.bias.metrics._interdependence import mean_absolute_correlation as mean_absolute_correlation
from sparsejax.analysis.bias.metrics._measured import REASONS as REASONS
from sparsejax.analysis.bias.metrics._measured import Measured as Measured
from sparsejax.analysis.bias.metrics._overrides import Overridden as Overridden
from sparsejax.analysis.bias.metrics._overrides import override_predictions as override_predictions
from sparsejax.analysis.bias.metrics._populations import RecallShift as RecallShift
from sparsejax.analysis.bias.metrics._populations import Taxicab as Taxicab
from sparsejax.analysis.bias.metrics._populations import cie_taxicab as cie_taxicab
from sparsejax.analysis.bias.metrics._populations import class_recall_shift as class_recall_shift
from sparsejax.analysis.bias.metrics._populations import modal_labels as modal_labels
from sparsejax.analysis.bias.metrics._populations import pie as pie
from sparsejax.analysis.bias.metrics._rates import GroupRates as GroupRates
from sparsejax.analysis.bias.metrics._rates import accuracy as accuracy
from sparsejax.analysis.bias.metrics._rates import auc as auc
from sparsejax.analysis.bias.metrics._rates import false_negative_rate as false_negative_rate
from sparsejax.analysis.bias.metrics._rates import false_positive_rate as false_positive_rate
from sparsejax.analysis.bias.metrics._rates import group_rates as group_rates
from sparsejax.analysis.bias.metrics._rates import precision_at_recall as precision_at_recall
from sparsejax.analysis.bias.metrics._rates import predicted_positive_rate as predicted_positive_rate
from sparsejax.analysis.bias.metrics._rates import rate_gaps as rate_gaps
from sparsejax.analysis.bias.metrics._reliability import ReliabilityTable as ReliabilityTable
from sparsejax.analysis.bias.metrics._reliability import expected_calibration_error as expected_calibration_error
from sparsejax.analysis.bias.metrics._reliability import reliability_table as reliability_table
from sparsejax.analysis.bias.metrics._risk import BiasRisk as BiasRisk
from sparsejax.analysis.bias.metrics._risk import bias_risk as bias_risk
from sparsejax.analysis.bias.metrics._systematic import rare_value_ratio as rare_value_ratio
from sparsejax.analysis.bias.metrics._systematic import tcb as tcb
from sparsejax.analysis.bias.metrics._thresholds import calibrate_thresholds as calibrate_thresholds
from sparsejax.analysis.bias.metrics._thresholds import hard_predictions as hard_predictions
from sparsejax.analysis.bias.metrics._uncertainty import SusceptibleSamples as SusceptibleSamples
from sparsejax.analysis.bias.metrics._uncertainty import susceptible_samples as susceptible_samples
from sparsejax.analysis.bias.metrics._uncertainty import uncertainty as uncertainty
from sparsejax.analysis.bias.metrics._uncertainty import uncertainty_score as uncertainty_score
