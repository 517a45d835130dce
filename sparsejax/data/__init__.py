"""Small image data sets and minibatches, as NumPy arrays with channels last."""

from sparsejax.data._batches import batches
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._idx import idx
from sparsejax.data._idx_dataset import idx_dataset
from sparsejax.data._load import load

__all__ = ["Dataset", "batches", "digits", "idx", "idx_dataset", "load"]
