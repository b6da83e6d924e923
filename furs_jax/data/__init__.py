"""Data sets in memory and on disk, their three splits, augmentation and batches."""

from furs_jax.data.batches import Split, evaluation_batches, training_batch, training_batches
from furs_jax.data.disk import AnySplit, DiskSplit, Reading
from furs_jax.data.sources import Images, load_images
from furs_jax.data.splits import Dataset, load_dataset

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
