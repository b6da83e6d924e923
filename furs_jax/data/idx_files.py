"""IDX files, the format of MNIST (yann.lecun.com/exdb/mnist): images and labels, as bytes."""

import gzip
import math
import os
import pathlib
import shlex
import struct

import numpy as np

from furs_jax.errors import DataError

PARTS = ("train", "t10k")  # to train on, to test on
# Names of a part's files: images, labels.
_STEMS = ("{}-images-idx3-ubyte", "{}-labels-idx1-ubyte")
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


def read(folder: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, H, W), and labels, uint8 (M,), of a part, from plain or gzipped files.

    Raises:
      DataError: a file is missing, damaged, or holds something else than bytes.
    """
    images, labels = (stem.format(part) for stem in _STEMS)
    return _read(folder, images, 3), _read(folder, labels, 1)


def write(folder: pathlib.Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes a part's two files, plain: images uint8 (N, H, W), labels uint8 (N,)."""
    for stem, values in zip(_STEMS, (images, labels), strict=True):
        header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
        with open(folder / stem.format(part), "wb") as file:
            file.write(header + values.tobytes())
            file.flush()
            os.fsync(file.fileno())


def _read(folder: pathlib.Path, stem: str, dimensions: int) -> np.ndarray:
    found = [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
    if not found:
        raise DataError(
            f"{folder / stem}[.gz] is missing. Fashion-MNIST in this form is Debian's package "
            "dataset-fashion-mnist (apt-get install dataset-fashion-mnist; it installs "
            "/usr/share/datasets/fashion-mnist) or the four files of "
            "github.com/zalandoresearch/fashion-mnist; then give --config.data.name=idx:DIR. "
            "Glyphs (configs/glyphs.py) are written there by bash launch/run.sh glyphs "
            f"{shlex.quote(str(folder))}, or python -m furs_jax.data.glyphs"
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
