"""Analysis of models and data: what pruning did, and whether the data can be trusted."""
