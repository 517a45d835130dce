"""The metrics: rates, bias amplification, flips, calibration, uncertainty, populations, thresholds, overrides."""
