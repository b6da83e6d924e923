"""Data sets in memory, their three splits, augmentation and batches."""

from furs_jax.data.batches import Split, evaluation_batches, training_batch
from furs_jax.data.sources import Images, load_images
from furs_jax.data.splits import Dataset, load_dataset

__all__ = [
    "Dataset",
    "Images",
    "Split",
    "evaluation_batches",
    "load_dataset",
    "load_images",
    "training_batch",
]
