"""The page of the filter."""
