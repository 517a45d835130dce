"""What sparsity saves: operations, bytes, and the report of both."""
