"""What data are, wherever they lie: labelled images, in splits. Imports nothing that reads them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

Batch = dict[str, np.ndarray]
# (step, places in its batch, shape (n,)) -> those n examples
Read = Callable[[int, np.ndarray], Batch]


class AnySplit(Protocol):
    """Labelled images of equal size, or made equal when read: `Split`, or `disk.DiskSplit`."""

    labels: np.ndarray  # int32, shape (N,)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""

    @property
    def eval_crop(self) -> float:
        """The share of an image's shorter side that evaluation cuts from its middle."""

    def take(self, index: np.ndarray | slice) -> "AnySplit":
        """The images at `index`, places in the split."""

    def joined(self, other: "AnySplit") -> "AnySplit":
        """The images of this split, then those of the other, of the same source."""

    def examples(self, index: np.ndarray, crop_seed: tuple[int, ...] | None = None) -> Batch:
        """image uint8 (n, H, W, C) and label int32 (n,) at `index`, shape (n,).

        Args:
          index: places in the split.
          crop_seed: of random crops that are cut as images are read; None for evaluation.
        """

    def batches(self, read: Read, steps: range, places: np.ndarray) -> Iterator[Batch]:
        """What `read` gives for each step, in order, perhaps read ahead."""


class Split(NamedTuple):
    """Labelled images of equal size, in memory."""

    images: np.ndarray  # uint8, shape (N, H, W, C)
    labels: np.ndarray  # int32, shape (N,)

    eval_crop = 1.0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def take(self, index: np.ndarray | slice) -> "Split":
        return Split(self.images[index], self.labels[index])

    def joined(self, other: "Split") -> "Split":
        """The images of this split, then those of the other."""
        return Split(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def examples(self, index: np.ndarray, crop_seed: tuple[int, ...] | None = None) -> Batch:
        """image and label at `index`; crops are cut on the device, so the seed is not used."""
        del crop_seed
        return {"image": self.images[index], "label": self.labels[index]}

    def batches(self, read: Read, steps: range, places: np.ndarray) -> Iterator[Batch]:
        """What `read` gives for each step, in order."""
        return (read(step, places) for step in steps)


class Images(NamedTuple):
    """A source's images: those that may be trained on, and those read once at the end."""

    train: AnySplit
    test: AnySplit
    num_classes: int
    class_names: tuple[str, ...] = ()  # where they are known
    class_folders: tuple[str, ...] = ()  # of images on disk, where one looks for a class

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """How the user would look for each class; empty where nothing tells."""
        return self.class_folders or tuple(f"class {name!r}" for name in self.class_names)


class Dataset(NamedTuple):
    """A data set, split; train and search are disjoint parts of the source's training images."""

    name: str
    train: AnySplit
    search: AnySplit
    test: AnySplit
    num_classes: int
    mean: tuple[float, ...]  # of each image channel over the training images, of 255
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()  # where they are known

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.train.image_shape

    @property
    def train_and_search(self) -> AnySplit:
        """All images that may be trained on, for the final training."""
        return self.train.joined(self.search)
