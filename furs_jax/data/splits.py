"""The three splits: train (weights), search (FURs), test (read once, at the end)."""

from typing import NamedTuple

import numpy as np

from furs_jax.data.batches import Split
from furs_jax.data.disk import AnySplit, DiskSplit, Reading
from furs_jax.data.holdout import stratified
from furs_jax.data.notes import say
from furs_jax.data.sources import Images, load_images
from furs_jax.errors import ConfigError, DataError
from furs_jax.options.schema import check_option

# Of images on disk: the usual figures of ImageNet's red, green and blue, of 1.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def load_dataset(
    name: str,
    search_fraction: float = 0.1,
    search_split: str = "stratified",
    seed: int = 0,
    data_dir: str | None = None,
    reading: Reading | None = None,
    pool: int = 1,
) -> Dataset:
    """Loads a data set and holds a search split out of its training images.

    Args:
      name, data_dir, reading: as of `load_images`.
      search_fraction: share of the training images that the search split gets.
      search_split: "stratified" (random, equal shares of every class) or "last" (the last images
        in the source's order, as the paper has it on CIFAR).
      seed: of the stratified choice.
      pool: images in memory are averaged over squares of so many pixels a side.

    Raises:
      DataError: see `load_images`, or too few images to split.
      ConfigError: search_fraction or search_split is out of range, or images can't be pooled so.
    """
    check_option("data.search_fraction", search_fraction)
    check_option("data.search_split", search_split)
    check_option("data.seed", seed)
    check_option("data.pool", pool)
    if search_split == "last" and name.startswith("folder:"):
        raise ConfigError(
            "a folder's images are in order of their classes, so data.search_split=last would hold "
            "out whole classes; give data.search_split=stratified"
        )
    images = load_images(name, data_dir, reading)
    trained, test = (_pooled(split, pool) for split in (images.train, images.test))
    images = images._replace(train=trained, test=test)
    train, search = _hold_out(name, images, search_fraction, search_split, seed)
    if isinstance(train, DiskSplit):
        mean, std = _IMAGENET_MEAN, _IMAGENET_STD
    else:
        mean, std = _statistics(train.images)
    return Dataset(name, train, search, test, images.num_classes, mean, std, images.class_names)


def _pooled(split: AnySplit, side: int) -> AnySplit:
    if side == 1:
        return split
    height, width, channels = split.image_shape
    if isinstance(split, DiskSplit):
        raise ConfigError(f"data.pool={side} is for images in memory; give data.image_size")
    if height % side or width % side:
        raise ConfigError(f"data.pool={side} must divide the images' {height}x{width} pixels")
    squares = split.images.reshape(-1, height // side, side, width // side, side, channels)
    means = np.add.reduce(squares, axis=(2, 4), dtype=np.uint32) / side**2
    return Split(np.round(means).astype(np.uint8), split.labels)


def _hold_out(
    name: str, images: Images, fraction: float, how: str, seed: int
) -> tuple[AnySplit, AnySplit]:
    split = images.train
    count = len(split.labels)
    if how == "stratified":
        places = stratified(split.labels, fraction, seed, name, images.shown_classes)
        return split.take(places[0]), split.take(places[1])
    held = round(fraction * count)
    if not 0 < held < count:
        raise DataError(
            f"data.search_fraction={fraction:g} of {count:,} images is {held:,}; give one that "
            "leaves images both to train on and to hold out"
        )
    train, search = split.take(slice(count - held)), split.take(slice(count - held, None))
    unknown = np.setdiff1d(search.labels, train.labels)
    if len(unknown):
        say(
            f"{name}: of the last {held:,} images, which are held out, some are of {len(unknown)} "
            "classes that no image to train on has; data.search_split=stratified avoids it"
        )
    return train, search


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each image channel, exact, in units of 1/255."""
    values = np.arange(256)
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        means.append(float(mean) / 255)
        stds.append(max(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))), 1) / 255)
    return tuple(means), tuple(stds)
