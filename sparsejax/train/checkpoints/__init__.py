"""Checkpoints of a run, and how they are verified."""
