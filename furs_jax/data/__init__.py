"""Data sets in memory and on disk, their three splits, augmentation and batches."""

from furs_jax.data.batches import evaluation_batches, training_batch, training_batches
from furs_jax.data.dataset import AnySplit, Dataset, Images, Split
from furs_jax.data.disk import DiskSplit, Reading
from furs_jax.data.splits import load_dataset, load_images

__all__ = [
    "AnySplit",
    "Dataset",
    "DiskSplit",
    "Images",
    "Reading",
    "Split",
    "evaluation_batches",
    "load_dataset",
    "load_images",
    "training_batch",
    "training_batches",
]
