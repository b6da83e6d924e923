"""Data sets by name, in three splits: train (weights), search (FURs), test (read at the end)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from furs_jax.data import folders, in_memory, npz_files
from furs_jax.data.arrays import NAMES, images_of
from furs_jax.data.dataset import AnySplit, Dataset, Images, Split
from furs_jax.data.disk import DiskSplit, Reading, split_on_disk
from furs_jax.data.holdout import fitting_share, hold_out_test, stratified
from furs_jax.data.notes import say
from furs_jax.errors import ConfigError, DataError
from furs_jax.options.given import PREFIX, Given
from furs_jax.options.schema import AUTO, check_option

SOURCES = (
    "digits",
    "idx:DIR (files as of MNIST and Fashion-MNIST)",
    "folder:DIR (with train/CLASS/*.JPEG and val/CLASS/*.JPEG, or CLASS/*.JPEG)",
    "npz:FILE (of np.savez, with images and labels)",
    "tfds:NAME (such as tfds:cifar10, tfds:cifar100, tfds:imagenet2012)",
    "random:HxWxC:CLASSES:COUNT (noise, to try speed and set-up)",
)
# Of images on disk: the usual figures of ImageNet's red, green and blue, of 1.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_dataset(
    name: str,
    search_fraction: float | str = 0.1,
    search_split: str = "stratified",
    seed: int = 0,
    data_dir: str | None = None,
    reading: Reading | None = None,
    pool: int = 1,
) -> Dataset:
    """Loads a data set and holds a search split out of its training images.

    Args:
      name, data_dir, reading: as of `load_images`.
      search_fraction: share of the training images that the search split gets, or "auto", see
        `holdout.fitting_share`.
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
    if search_fraction == AUTO:
        search_fraction = fitting_share(images.train.labels)
    train, search = _hold_out(name, images, search_fraction, search_split, seed)
    if isinstance(train, DiskSplit):
        mean, std = _IMAGENET_MEAN, _IMAGENET_STD
    else:
        mean, std = _statistics(train.images)
    return Dataset(name, train, search, test, images.num_classes, mean, std, images.class_names)


def load_images(name: str, data_dir: str | None = None, reading: Reading | None = None) -> Images:
    """Loads a data set into memory, or lists it where its images stay on disk.

    Args:
      name: one of `SOURCES`.
      data_dir: where TFDS keeps its prepared sets; None for its default.
      reading: of images on disk; None for its defaults.

    Raises:
      DataError: the name is unknown, or files are missing or damaged; says how to get them.
    """
    reading = reading or Reading()
    for field, value in dataclasses.asdict(reading).items():
        check_option(f"data.{field}", value)
    if isinstance(name, Given):
        return name.value
    kind, _, argument = name.partition(":")
    loaders: dict[str, Callable[[], Images]] = {
        "digits": in_memory.digits,
        "idx": lambda: in_memory.idx(pathlib.Path(argument).expanduser()),
        "folder": lambda: _folder(pathlib.Path(argument).expanduser(), reading),
        "npz": lambda: images_of(npz_files.read(pathlib.Path(argument).expanduser(), NAMES), name),
        "tfds": lambda: _tfds(argument, data_dir, reading),
        "random": lambda: in_memory.random(argument),
    }
    if name.startswith(PREFIX):
        raise DataError(
            f"the images, {name}, were given to furs_jax.search as arrays; give it the same again"
        )
    if kind not in loaders:
        raise DataError(f"unknown data set {name!r}; config.data.name can be {'; '.join(SOURCES)}")
    return loaders[kind]()


def _folder(folder: pathlib.Path, reading: Reading) -> Images:
    found = folders.scan(folder)
    say(found.summary)
    train = split_on_disk(found.train, found.train_labels, reading)
    names = tuple(pathlib.Path(path).name for path in found.class_folders)
    if found.test is None:
        train, test = hold_out_test(f"folder:{folder}", train, found.class_folders)
    else:
        test = split_on_disk(*found.test, reading)
    return Images(train, test, len(names), names, found.class_folders)


def _tfds(name: str, data_dir: str | None, reading: Reading) -> Images:
    from furs_jax.data import tfds_sets  # imports TFDS and JAX

    on_disk = functools.partial(split_on_disk, reading=reading)
    return tfds_sets.load(name, data_dir, on_disk, reading.threads)


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
