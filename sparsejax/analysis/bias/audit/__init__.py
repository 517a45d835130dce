"""The audit of one comparison: inputs, evaluation of every run, tables, plots, countermeasures, regression checks."""
