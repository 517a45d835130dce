"""Experiments: methods by name, runs that resume, metrics, tables and plots of their results."""
