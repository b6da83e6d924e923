"""Two halves of a split, read side by side: what one trains, the other judges."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from furs_jax.data.dataset import AnySplit, Batch, Read


class Halves(NamedTuple):
    """Pairs of images, one of each half; an example is a pair, so a batch has two images for each.

    Of a batch the images at even places are the first half's, those at odd places the second's.
    """

    first: AnySplit
    second: AnySplit  # as large

    @property
    def labels(self) -> np.ndarray:
        """Of the first half's images."""
        return self.first.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.first.image_shape

    def examples(self, index: np.ndarray, crop_seed: tuple[int, ...] | None = None) -> Batch:
        """The pairs at `index`, shape (n,): arrays of 2n."""
        first, second = (half.examples(index, crop_seed) for half in self)
        return {
            key: np.stack([first[key], second[key]], axis=1).reshape(-1, *first[key].shape[1:])
            for key in first
        }

    def batches(self, read: Read, steps: range, places: np.ndarray) -> Iterator[Batch]:
        return self.first.batches(read, steps, places)


def halves(split: AnySplit, seed: int) -> Halves:
    """Two random halves, disjoint; an odd image is left out."""
    order = np.random.default_rng(seed).permutation(len(split.labels))
    size = len(order) // 2
    return Halves(split.take(np.sort(order[:size])), split.take(np.sort(order[size : 2 * size])))
