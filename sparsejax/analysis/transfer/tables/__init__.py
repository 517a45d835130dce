"""What is computed from results: cells, aggregates, tests, ranks, correlations, and the report."""
