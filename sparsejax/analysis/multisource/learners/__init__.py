"""Classifiers that take a protected attribute, and the baselines that FLEA is compared with."""
