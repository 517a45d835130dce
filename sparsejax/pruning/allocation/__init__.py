"""Which weights a sparsity leaves: structures, scopes, distributions over layers, and selection by score."""
