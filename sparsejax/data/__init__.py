"""Image data sets and minibatches, as NumPy arrays with channels last."""

from sparsejax._surface import attributes as _attributes
from sparsejax.data._batches import batches
from sparsejax.data._celeba import CelebA, read_celeba_attributes
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._downstream import DOWNSTREAM_DATASETS, DownstreamDataset, downstream_task
from sparsejax.data._idx import idx_dataset, read_idx
from sparsejax.data._image_folder import image_folder
from sparsejax.data._load import load, load_task
from sparsejax.data._markers import corner_square, grayscale, marked_samples
from sparsejax.data._preprocessing import Preprocessing
from sparsejax.data._task import ArrayImageSplit, ImageSplit, ImageTask, LazyImageSplit

__all__ = [
    "DOWNSTREAM_DATASETS",
    "ArrayImageSplit",
    "CelebA",
    "Dataset",
    "DownstreamDataset",
    "ImageSplit",
    "ImageTask",
    "LazyImageSplit",
    "Preprocessing",
    "batches",
    "corner_square",
    "digits",
    "downstream_task",
    "grayscale",
    "idx_dataset",
    "image_folder",
    "load",
    "load_task",
    "marked_samples",
    "read_celeba_attributes",
    "read_idx",
]

__getattr__, __dir__ = _attributes(
    __name__,
    deprecated={
        "ArrayImages": "sparsejax.data.ArrayImageSplit",
        "BENCHMARKS": "sparsejax.data.DOWNSTREAM_DATASETS",
        "Benchmark": "sparsejax.data.DownstreamDataset",
        "Images": "sparsejax.data.ImageSplit",
        "Pictures": "sparsejax.data.LazyImageSplit",
        "Reading": "sparsejax.data.Preprocessing",
        "benchmark": "sparsejax.data.downstream_task",
        "idx": "sparsejax.data.read_idx",
    },
)
