"""Batches as pure functions of (seed, step), so that a resumed run meets the same ones."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Batch = dict[str, np.ndarray]


class Split(NamedTuple):
    """Labelled images of equal size."""

    images: np.ndarray  # uint8, shape (N, H, W, C)
    labels: np.ndarray  # int32, shape (N,)

    def take(self, index: np.ndarray) -> "Split":
        return Split(self.images[index], self.labels[index])


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Whole batches in one epoch; the remainder is left out, another one every epoch."""
    return len(split.labels) // batch_size


def training_batch(split: Split, seed: int, step: int, batch_size: int) -> Batch:
    """The batch of a training step: a new permutation of the split in every epoch.

    Returns:
      image uint8 (batch_size, H, W, C) and label int32 (batch_size,).
    """
    epoch, position = divmod(step, steps_per_epoch(split, batch_size))
    order = _order(seed, epoch, len(split.labels))
    chosen = split.take(order[position * batch_size : (position + 1) * batch_size])
    return {"image": chosen.images, "label": chosen.labels}


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Every image once, in order, in batches of one shape.

    The last batch is filled up with repeated images of weight zero.

    Yields:
      image uint8 (batch_size, H, W, C), label int32, index int32 (the image's place in the
      split) and weight float32 (1 or 0), each of shape (batch_size,).
    """
    count = len(split.labels)
    for start in range(0, count, batch_size):
        place = np.arange(start, start + batch_size)
        index = np.minimum(place, count - 1)
        chosen = split.take(index)
        yield {
            "image": chosen.images,
            "label": chosen.labels,
            "index": index.astype(np.int32),
            "weight": (place < count).astype(np.float32),
        }
