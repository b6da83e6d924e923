"""TFDS sets in ArrayRecord form: small ones of one image size in memory, others from disk.

`tfds.data_source` reads what is prepared; TensorFlow is needed only to prepare it.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from furs_jax.data.batches import Split
from furs_jax.data.disk import AnySplit, Reading, split_on_disk
from furs_jax.errors import DataError
from furs_jax.runtime import cache_folder


def load(name: str, data_dir: str | None, reading: Reading) -> tuple[AnySplit, AnySplit, int]:
    """The images to train on, those to test on, and the number of classes.

    Raises:
      DataError: the set is unknown, not prepared, or no classification of images.
    """
    import tensorflow_datasets as tfds

    with _explained(name, data_dir):
        builder = tfds.builder(name, data_dir=data_dir)
        features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise DataError(f"{name!r} is no classification set: it has no image or no label")
    one_size = None not in features["image"].shape
    decoders = None if one_size else {"image": tfds.decode.SkipDecoding()}
    splits = ("train", _test_split(name, builder.info.splits))
    with _explained(name, data_dir):
        sources = [
            tfds.data_source(
                name, split=split, data_dir=data_dir, download=False, decoders=decoders
            )
            for split in splits
        ]
    classes = features["label"].num_classes
    if one_size:
        return *map(_collect, sources), classes
    titles = [f"{builder.info.full_name} {split} in {builder.data_dir}" for split in splits]
    parts = [
        split_on_disk(TfdsRecords(*pair), _labels(*pair, reading.threads), reading)
        for pair in zip(titles, sources, strict=True)
    ]
    return *parts, classes


@contextlib.contextmanager
def _explained(name: str, data_dir: str | None) -> Iterator[None]:
    """Turns the errors of TFDS into ones that say what to do."""
    import tensorflow_datasets as tfds

    try:
        yield
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"TensorFlow Datasets has no data set {name!r}") from error
    except ImportError as error:
        raise DataError(f"{error}; install what reads TFDS: pip install furs_jax[tfds]") from error
    except (AssertionError, KeyError, NotImplementedError, OSError, ValueError) as error:
        raise DataError(_how_to_prepare(name, data_dir)) from error


def _test_split(name: str, splits: Any) -> str:
    """ImageNet's test split has no labels."""
    has_test = not splits or "test" in splits  # splits are known only where TFDS holds metadata
    return "test" if has_test and not name.startswith("imagenet2012") else "validation"


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


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
    """Examples with encoded images, as `disk.Records`."""

    title: str
    source: Any

    def __len__(self) -> int:
        return len(self.source)

    def read(self, number: int) -> bytes:
        return self.source[number]["image"]

    def name(self, number: int) -> str:
        file_name = self.source[number].get("file_name", b"")
        file_name = file_name.decode() if isinstance(file_name, bytes) else str(file_name)
        return f"example {number} of {self.title}{f' ({file_name})' if file_name else ''}"


def _labels(title: str, source: Any, threads: int, chunk: int = 1024) -> np.ndarray:
    """All labels, int32; they lie beside the images, so a first pass reads all and keeps them."""
    key = hashlib.sha256(f"{title}:{len(source)}".encode()).hexdigest()[:16]
    path = cache_folder() / "labels" / f"{key}.npy"
    with contextlib.suppress(OSError, ValueError):
        labels = np.load(path)
        if labels.shape == (len(source),):
            return labels
    starts = range(0, len(source), chunk)

    def read(start: int) -> list[int]:
        return [source[i]["label"] for i in range(start, min(start + chunk, len(source)))]

    with ThreadPoolExecutor(threads) as pool:
        parts = tqdm(
            pool.map(read, starts),
            desc="labels, kept for the next time",
            total=len(starts),
            leave=False,
            disable=None,
        )
        labels = np.array([label for part in parts for label in part], np.int32)
    with contextlib.suppress(OSError):  # a cache that can't be written costs time, not the run
        _save(path, labels)
    return labels


def _save(path: pathlib.Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.npy")
    np.save(part, labels)
    os.replace(part, path)
