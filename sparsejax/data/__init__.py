"""Small image data sets and minibatches, as NumPy arrays with channels last."""

from sparsejax.data._batches import batches
from sparsejax.data._celeba import CelebA, read_celeba_attributes
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._idx import idx
from sparsejax.data._idx_dataset import idx_dataset
from sparsejax.data._load import load
from sparsejax.data._markers import corner_square, grayscale, marked_samples

__all__ = [
    "CelebA",
    "Dataset",
    "batches",
    "corner_square",
    "digits",
    "grayscale",
    "idx",
    "idx_dataset",
    "load",
    "marked_samples",
    "read_celeba_attributes",
]
