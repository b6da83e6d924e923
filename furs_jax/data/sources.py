"""Where images come from: scikit-learn's digits, IDX files, TFDS, or a random generator."""

import gzip
import pathlib
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from furs_jax.data.batches import Split
from furs_jax.errors import DataError

SOURCES = (
    "digits",
    "idx:DIR (files as of MNIST and Fashion-MNIST)",
    "tfds:NAME (such as tfds:cifar10, tfds:cifar100)",
    "random:HxWxC:CLASSES:COUNT (noise, to try speed and set-up)",
)


class Images(NamedTuple):
    """A source's images: those that may be trained on, and those read once at the end."""

    train: Split
    test: Split
    num_classes: int


def load_images(name: str, data_dir: str | None = None) -> Images:
    """Loads a data set into memory.

    Args:
      name: one of `SOURCES`.
      data_dir: where TFDS keeps its prepared sets; None for its default.

    Raises:
      DataError: the name is unknown, or files are missing or damaged; says how to get them.
    """
    kind, _, argument = name.partition(":")
    loaders: dict[str, Callable[[], Images]] = {
        "digits": _digits,
        "idx": lambda: _idx(pathlib.Path(argument).expanduser()),
        "tfds": lambda: _tfds(argument, data_dir),
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


def _tfds(name: str, data_dir: str | None) -> Images:
    # tfds.data_source reads prepared ArrayRecord files; TensorFlow is needed only to prepare them.
    import tensorflow_datasets as tfds

    try:
        features = tfds.builder(name, data_dir=data_dir).info.features
        sources = [
            tfds.data_source(name, split=split, data_dir=data_dir, download=False)
            for split in ("train", "test")
        ]
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"TensorFlow Datasets has no data set {name!r}") from error
    except ImportError as error:
        raise DataError(f"{error}; install what reads TFDS: pip install furs_jax[tfds]") from error
    except (AssertionError, KeyError, NotImplementedError, OSError, ValueError) as error:
        raise DataError(_how_to_prepare(name, data_dir)) from error
    if not {"image", "label"} <= set(features):
        raise DataError(f"{name!r} is no classification set: it has no image or no label")
    if None in features["image"].shape:
        raise DataError(
            f"the images of {name!r} differ in size; sets that must be cropped as they are read, "
            "like ImageNet, are not supported yet"
        )
    return Images(*map(_collect, sources), features["label"].num_classes)


def _how_to_prepare(name: str, data_dir: str | None) -> str:
    by_hand = "; first put the two ImageNet archives of image-net.org in downloads/manual there"
    return (
        f"data set {name!r} is not prepared in ArrayRecord form in "
        f"{data_dir or '~/tensorflow_datasets'}"
        f"{by_hand if name.startswith('imagenet') else ''}. Prepare it once, on a machine with "
        "TensorFlow (pip install tensorflow), by: python -c 'import tensorflow_datasets as tfds; "
        f'tfds.builder("{name}", file_format="array_record"'
        f"{f', data_dir={chr(34)}{data_dir}{chr(34)}' if data_dir else ''})"
        ".download_and_prepare()'"
    )


def _collect(source: Any) -> Split:
    examples = [source[index] for index in range(len(source))]
    return Split(
        np.stack([example["image"] for example in examples]).astype(np.uint8),
        np.array([example["label"] for example in examples], np.int32),
    )


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
