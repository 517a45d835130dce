"""Image data sets and minibatches, as NumPy arrays with channels last."""

from sparsejax.data._batches import batches
from sparsejax.data._celeba import CelebA, read_celeba_attributes
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._downstream import BENCHMARKS, Benchmark, benchmark
from sparsejax.data._idx import idx, idx_dataset
from sparsejax.data._image_folder import image_folder
from sparsejax.data._load import load, load_task
from sparsejax.data._markers import corner_square, grayscale, marked_samples
from sparsejax.data._preprocessing import Reading
from sparsejax.data._task import ArrayImages, Images, ImageTask, Pictures

__all__ = [
    "BENCHMARKS",
    "ArrayImages",
    "Benchmark",
    "CelebA",
    "Dataset",
    "ImageTask",
    "Images",
    "Pictures",
    "Reading",
    "batches",
    "benchmark",
    "corner_square",
    "digits",
    "grayscale",
    "idx",
    "idx_dataset",
    "image_folder",
    "load",
    "load_task",
    "marked_samples",
    "read_celeba_attributes",
]
