"""Data sets that are read into memory: digits, IDX files, or random numbers."""

import pathlib
import re

import numpy as np

from furs_jax.data import idx_files
from furs_jax.data.dataset import Images, Split
from furs_jax.data.holdout import stratified
from furs_jax.errors import DataError


def digits() -> Images:
    """1,797 handwritten digits of 8x8 pixels; a seeded, stratified fifth of them is the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    split = Split(images, bunch.target.astype(np.int32))
    train, test = stratified(split.labels, 0.2, 0, "digits")
    return Images(split.take(train), split.take(test), 10)


def idx(folder: pathlib.Path) -> Images:
    train, test = (
        Split(images[..., None], labels.astype(np.int32))
        for images, labels in (idx_files.read(folder, part) for part in idx_files.PARTS)
    )
    for split in (train, test):
        if len(split.images) != len(split.labels):
            raise DataError(
                f"{folder} holds {len(split.images)} images but {len(split.labels)} labels; "
                "fetch its four files again"
            )
        if not split.images.size:
            raise DataError(f"{folder} holds no images to train on or none to test on")
    unknown = np.setdiff1d(test.labels, train.labels)
    if len(unknown):
        raise DataError(
            f"{np.isin(test.labels, unknown).sum():,} test images in {folder} have labels that no "
            f"training image has: {', '.join(map(str, unknown[:10]))}; remove them, or add images "
            "of these classes to train on"
        )
    return Images(train, test, int(train.labels.max()) + 1)


def random(argument: str) -> Images:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+):(\d+):(\d+)", argument)
    if not match:
        raise DataError(f"'random:{argument}' should be like random:32x32x3:100:1024")
    *shape, classes, count = map(int, match.groups())
    if 0 in (*shape, classes, count):
        raise DataError(f"'random:{argument}' must not have a zero, as in random:32x32x3:100:1024")
    train, test = (_noise(seed, count, shape, classes) for seed in (0, 1))
    return Images(train, test, classes)


def _noise(seed: int, count: int, shape: list[int], classes: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return Split(images, np.arange(count, dtype=np.int32) % classes)
