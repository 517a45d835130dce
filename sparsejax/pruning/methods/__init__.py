"""Pruning methods, one file for each family."""
