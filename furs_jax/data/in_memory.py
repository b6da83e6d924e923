"""Data sets that are read into memory: digits, IDX files, or random numbers."""

import gzip
import math
import os
import pathlib
import re
import struct

import numpy as np

from furs_jax.data.dataset import Images, Split
from furs_jax.data.holdout import stratified
from furs_jax.errors import DataError

# What an IDX file's third byte says that it holds.
_IDX_TYPES = {
    0x08: "bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "floats",
    0x0E: "doubles",
}
# A gzipped IDX file may claim so many bytes, or so many for each that it has: Fashion-MNIST's
# images shrink to a half, the digits of MNIST to a fifth.
_SMALL, _SHRINKS = 1 << 28, 100


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
    path = found[0]
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
            kind, given = divmod(magic, 1 << 8)
            if kind != 0x08 and kind in _IDX_TYPES:
                raise DataError(f"{path} holds {_IDX_TYPES[kind]}; only bytes are read: convert it")
            if (kind, given) != (0x08, dimensions):
                raise ValueError(f"magic number {magic:#x}, not {0x0800 + dimensions:#x}")
            size = math.prod(shape)
            _check_claim(size, len(header), os.fstat(file.fileno()).st_size, path.suffix == ".gz")
            content = file.read(size + 1)  # one more, to see the end
        if len(content) != size:
            more = "more" if len(content) > size else "less"
            raise ValueError(f"its header says {size:,} bytes, and it holds {more}")
        return np.frombuffer(content, np.uint8).reshape(shape)
    except DataError:
        raise
    except (ValueError, EOFError, OSError, struct.error, gzip.zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again") from error


def _check_claim(size: int, header: int, file_size: int, gzipped: bool) -> None:
    """Raises ValueError where a file can't hold what its header claims, before that is read."""
    most = max(_SMALL, _SHRINKS * file_size) if gzipped else file_size - header
    if size > most:
        raise ValueError(f"its header claims {size:,} bytes, of {file_size:,} in the file")


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
