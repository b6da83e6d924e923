"""Where images come from: digits, IDX files, TFDS, a folder of classes, or random numbers."""

import gzip
import pathlib
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from furs_jax.data import folders
from furs_jax.data.batches import Split
from furs_jax.data.disk import AnySplit, Reading, split_on_disk
from furs_jax.errors import DataError

SOURCES = (
    "digits",
    "idx:DIR (files as of MNIST and Fashion-MNIST)",
    "folder:DIR (with train/CLASS/*.JPEG and val/CLASS/*.JPEG)",
    "tfds:NAME (such as tfds:cifar10, tfds:cifar100, tfds:imagenet2012)",
    "random:HxWxC:CLASSES:COUNT (noise, to try speed and set-up)",
)


class Images(NamedTuple):
    """A source's images: those that may be trained on, and those read once at the end."""

    train: AnySplit
    test: AnySplit
    num_classes: int


def load_images(name: str, data_dir: str | None = None, reading: Reading | None = None) -> Images:
    """Loads a data set into memory, or lists it where its images stay on disk.

    Args:
      name: one of `SOURCES`.
      data_dir: where TFDS keeps its prepared sets; None for its default.
      reading: of images on disk; None for its defaults.

    Raises:
      DataError: the name is unknown, or files are missing or damaged; says how to get them.
    """
    kind, _, argument = name.partition(":")
    reading = reading or Reading()
    reading.check()
    loaders: dict[str, Callable[[], Images]] = {
        "digits": _digits,
        "idx": lambda: _idx(pathlib.Path(argument).expanduser()),
        "folder": lambda: _folder(pathlib.Path(argument).expanduser(), reading),
        "tfds": lambda: _tfds(argument, data_dir, reading),
        "random": lambda: _random(argument),
    }
    if kind not in loaders:
        raise DataError(f"unknown data set {name!r}; config.data.name can be {'; '.join(SOURCES)}")
    return loaders[kind]()


def _digits() -> Images:
    """1,797 handwritten digits of 8x8 pixels; a seeded, stratified fifth of them is the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    split = Split(images, bunch.target.astype(np.int32))
    train, test = train_test_split(
        np.arange(len(split.labels)), test_size=0.2, stratify=split.labels, random_state=0
    )
    return Images(split.take(np.sort(train)), split.take(np.sort(test)), 10)


def _idx(folder: pathlib.Path) -> Images:
    train, test = (
        Split(
            _read_idx(folder, f"{part}-images-idx3-ubyte", 3)[..., None],
            _read_idx(folder, f"{part}-labels-idx1-ubyte", 1).astype(np.int32),
        )
        for part in ("train", "t10k")
    )
    for split in (train, test):
        if len(split.images) != len(split.labels):
            raise DataError(
                f"{folder} holds {len(split.images)} images but {len(split.labels)} labels; "
                "fetch its four files again"
            )
    return Images(train, test, int(train.labels.max()) + 1)


def _read_idx(folder: pathlib.Path, stem: str, dimensions: int) -> np.ndarray:
    """Reads an IDX file of bytes, plain or gzipped (format: yann.lecun.com/exdb/mnist)."""
    found = [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
    if not found:
        raise DataError(
            f"{folder / stem}[.gz] is missing. Fashion-MNIST in this form is Debian's package "
            "dataset-fashion-mnist (apt-get install dataset-fashion-mnist; it installs "
            "/usr/share/datasets/fashion-mnist) or the four files of "
            "github.com/zalandoresearch/fashion-mnist; then give --config.data.name=idx:DIR"
        )
    try:
        raw = found[0].read_bytes()
        content = gzip.decompress(raw) if found[0].suffix == ".gz" else raw
        header = 4 + 4 * dimensions
        magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:header])
        if magic != 0x0800 + dimensions:
            raise ValueError(f"magic number {magic:#x}, not {0x0800 + dimensions:#x}")
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    except (ValueError, EOFError, OSError, struct.error, gzip.zlib.error) as error:
        raise DataError(f"{found[0]} is damaged ({error}); fetch it again") from error


def _folder(folder: pathlib.Path, reading: Reading) -> Images:
    files, labels, test_files, test_labels, num_classes = folders.scan(folder)
    return Images(
        split_on_disk(files, labels, reading),
        split_on_disk(test_files, test_labels, reading),
        num_classes,
    )


def _tfds(name: str, data_dir: str | None, reading: Reading) -> Images:
    from furs_jax.data import tfds_sets  # imports TFDS and JAX

    return Images(*tfds_sets.load(name, data_dir, reading))


def _random(argument: str) -> Images:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+):(\d+):(\d+)", argument)
    if not match:
        raise DataError(f"'random:{argument}' should be like random:32x32x3:100:1024")
    *shape, classes, count = map(int, match.groups())
    train, test = (_noise(seed, count, shape, classes) for seed in (0, 1))
    return Images(train, test, classes)


def _noise(seed: int, count: int, shape: list[int], classes: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return Split(images, np.arange(count, dtype=np.int32) % classes)
