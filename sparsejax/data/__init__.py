"""Image data sets and minibatches, as NumPy arrays with channels last."""

from sparsejax._surface import attributes as _attributes
from sparsejax.data._augmentation import Augmentation
from sparsejax.data._batches import batches
from sparsejax.data._byte_split import ByteImageSplit
from sparsejax.data._celeba import CelebA, read_celeba_attributes
from sparsejax.data._dataset import Dataset
from sparsejax.data._digits import digits
from sparsejax.data._downstream import DOWNSTREAM_DATASETS, DownstreamDataset, downstream_task
from sparsejax.data._idx import idx_dataset, idx_images, read_idx
from sparsejax.data._image_folder import image_folder
from sparsejax.data._load import load, load_task
from sparsejax.data._markers import corner_square, grayscale, marked_samples
from sparsejax.data._npz_images import npz_images
from sparsejax.data._preprocessing import Preprocessing
from sparsejax.data._read_ahead import read_ahead
from sparsejax.data._task import ArrayImageSplit, ImageSplit, ImageTask, LazyImageSplit

__all__ = [
    "DOWNSTREAM_DATASETS",
    "ArrayImageSplit",
    "Augmentation",
    "ByteImageSplit",
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
    "idx_images",
    "image_folder",
    "load",
    "load_task",
    "marked_samples",
    "npz_images",
    "read_ahead",
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
