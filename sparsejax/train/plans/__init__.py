"""Which steps of a run are dense, which are sparse, and when its mask changes: one file for each family of methods."""
