"""TFDS sets in ArrayRecord form: small ones of one image size in memory, others from disk.

`tfds.data_source` reads what is prepared; TensorFlow is needed only to prepare it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from furs_jax.data.dataset import AnySplit, Images, Split
from furs_jax.data.holdout import hold_out_test
from furs_jax.data.notes import say
from furs_jax.data.pixels import UnsupportedError, eight_bits
from furs_jax.errors import DataError, MissingExtraError
from furs_jax.machine.program_cache import cache_folder

_TEST_SPLITS = ("test", "validation", "val", "valid", "dev")  # the first that exists, with labels
_UNKNOWN = -1  # the label of images without one


def load(
    name: str,
    data_dir: str | None,
    on_disk: Callable[["TfdsRecords", np.ndarray], AnySplit],
    threads: int,
) -> Images:
    """The images of a set to train on and to test on.

    Where a set has no labelled test split, its validation split is tested on; where it has neither,
    a part of its training images.

    Args:
      name: as TFDS knows it.
      data_dir: where it is prepared; None for TFDS's default.
      on_disk: makes a split of records and labels, for images that are not held in memory.
      threads: that read labels.

    Raises:
      DataError: the set is unknown, not prepared, damaged, or no classification of images.
      MissingExtraError: what reads it is not installed.
    """
    import tensorflow_datasets as tfds

    with _explained(name, data_dir):
        builder = tfds.builder(name, data_dir=data_dir)
        features = dict(builder.info.features or {})
        known = tuple(builder.info.splits)  # also where it isn't prepared, if TFDS holds metadata
    image, label = (features.get(key) for key in ("image", "label"))
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        raise DataError(
            f"{name!r} is no classification set: its features image and label must be one image "
            "and one class"
        )
    if known and "train" not in known:
        raise DataError(
            f"{name!r} has the splits {', '.join(known)}, and none named train; choose another set"
        )
    read = functools.partial(_split, name, builder, data_dir, on_disk, threads)
    train = read("train")
    classes, names = label.num_classes, tuple(label.names or ())
    _check_labels(train.labels, classes, f"the split train of {name!r}")
    # ImageNet's test split has no labels; told by its name, it need not be read to see.
    wanted = _TEST_SPLITS[1:] if name.startswith("imagenet2012") else _TEST_SPLITS
    if known:
        wanted = [split for split in wanted if split in known]
    for split in wanted:
        test = read(split)
        if np.all(test.labels == _UNKNOWN):
            continue
        _check_labels(test.labels, classes, f"the split {split} of {name!r}")
        if split != "test":
            say(f"tfds:{name} has no labelled test split; its split {split} is tested on")
        return Images(train, test, classes, names)
    try:
        shown = [f"class {word!r}" for word in names]
        return Images(*hold_out_test(f"tfds:{name}", train, shown), classes, names)
    except DataError as error:
        raise DataError(
            f"{name!r} has no labelled split to test on ({', '.join(known)}), and its "
            f"{len(train.labels):,} training images are too few to hold some out; choose another "
            "set"
        ) from error


def _split(
    name: str, builder: Any, data_dir: str | None, on_disk: Callable, threads: int, split: str
) -> AnySplit:
    import tensorflow_datasets as tfds

    with _explained(name, data_dir):
        source = tfds.data_source(
            name,
            split=split,
            data_dir=data_dir,
            download=False,
            decoders={"image": tfds.decode.SkipDecoding()},
        )
    records = TfdsRecords(f"{builder.info.full_name} {split} in {builder.data_dir}", source)
    if not len(records):
        raise DataError(f"the split {split} of {name!r} is empty")
    feature = builder.info.features["image"]
    if None not in feature.shape:
        return _collect(records, feature.shape, feature.np_dtype)
    if feature.np_dtype == np.float32:
        raise DataError(f"{name!r} holds images of floats that differ in size, which are not read")
    prepared = ""
    with contextlib.suppress(OSError):  # a set prepared anew has labels of its own
        prepared = os.stat(os.path.join(builder.data_dir, "dataset_info.json")).st_mtime_ns
    return on_disk(records, _labels(records, prepared, threads))


def _check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(
            f"{where} has {len(wrong):,} labels, such as {wrong[0]}, that are none of its "
            f"{classes} classes, 0 to {classes - 1}; choose another set, or prepare it anew"
        )


@contextlib.contextmanager
def _explained(name: str, data_dir: str | None) -> Iterator[None]:
    """Turns the errors of TFDS into ones that say what to do."""
    import tensorflow_datasets as tfds

    try:
        yield
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(f"TensorFlow Datasets has no data set {name!r}") from error
    except ImportError as error:
        raise MissingExtraError("TFDS sets", str(error.name or error), "tfds") from error
    except (AssertionError, KeyError, NotImplementedError, OSError, ValueError) as error:
        raise DataError(_how_to_prepare(name, data_dir)) from error
    except Exception as error:  # of protobuf, where a file is damaged
        reason = str(error).splitlines()[:1]
        raise DataError(
            f"data set {name!r} is damaged ({' '.join(reason)}); remove its folder in "
            f"{data_dir or '~/tensorflow_datasets'} and prepare it anew"
        ) from error


def _how_to_prepare(name: str, data_dir: str | None) -> str:
    by_hand = "; first put the two ImageNet archives of image-net.org in downloads/manual there"
    return (
        f"data set {name!r} is not prepared in ArrayRecord form in "
        f"{data_dir or '~/tensorflow_datasets'}"
        f"{by_hand if name.startswith('imagenet') else ''}. Prepare it once, on a machine with "
        "TensorFlow (pip install tensorflow tensorflow-datasets importlib_resources), by: "
        "python -c 'import tensorflow_datasets as tfds; "
        f'tfds.builder("{name}", file_format="array_record"'
        f"{f', data_dir={chr(34)}{data_dir}{chr(34)}' if data_dir else ''})"
        ".download_and_prepare()'"
    )


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
    """Examples with encoded images, as `disk.Records`."""

    title: str
    source: Any

    def __len__(self) -> int:
        return len(self.source)

    def read(self, number: int) -> bytes:
        try:
            return bytes(self.source[number]["image"])
        except Exception as error:  # array_record and protobuf raise errors of many kinds
            raise ValueError(f"its record can't be read: {error}") from error

    def label(self, number: int) -> int:
        try:
            return int(self.source[number]["label"])
        except Exception as error:
            raise DataError(
                f"{self._place(number)} can't be read ({error}); prepare the set anew"
            ) from error

    def name(self, number: int) -> str:
        file_name = b""
        with contextlib.suppress(Exception):  # it may be damaged
            file_name = self.source[number].get("file_name", b"")
        file_name = file_name.decode() if isinstance(file_name, bytes) else str(file_name)
        return f"{self._place(number)}{f' ({file_name})' if file_name else ''}"

    def _place(self, number: int) -> str:
        return f"example {number} of {self.title}"


def _collect(records: TfdsRecords, shape: tuple[int, int, int], dtype: np.dtype) -> Split:
    """Decodes all images into memory: TFDS alone would pass damaged ones on, and cast depths."""
    images = np.empty((len(records), *shape), np.uint8)
    for i in range(len(records)):
        try:
            images[i] = _decoded(records.read(i), shape, dtype)
        except ValueError as error:
            what = "can't be used" if isinstance(error, UnsupportedError) else "is damaged"
            remedy = "choose another set" if what == "can't be used" else "prepare the set anew"
            raise DataError(f"{records.name(i)} {what} ({error}); {remedy}") from error
    if dtype == np.uint16 and not images.any():
        raise DataError(f"all 16-bit images of {records.title} are black in 8 bits")
    labels = np.array([records.label(i) for i in range(len(records))], np.int64)
    return Split(images, _small(labels))


def _decoded(data: bytes, shape: tuple[int, int, int], dtype: np.dtype) -> np.ndarray:
    """An image as uint8 of the shape; grey is repeated and alpha dropped where it asks for that."""
    from furs_jax.data import formats

    if data.startswith(b"\xff\xd8"):
        try:
            from furs_jax.data import jpeg
        except ImportError as error:
            raise MissingExtraError("JPEG images", error.name, "images") from error
        pixels = jpeg.decode(data)[0]
    else:
        pixels = formats.decode(data, black=True)
    if dtype == np.float32:  # TFDS keeps a float's four bytes as four channels
        pixels = eight_bits(np.ascontiguousarray(pixels).view(np.float32))
    channels = shape[-1]
    if pixels.shape[-1] in (2, 4) and channels == pixels.shape[-1] - 1:
        pixels = pixels[..., :-1]
    if pixels.shape[-1] == 1 and channels == 3:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if pixels.shape != shape:
        raise ValueError(f"its shape is {pixels.shape}, not {shape}")
    return pixels


def _small(labels: np.ndarray) -> np.ndarray:
    """Labels as int32; what doesn't fit is no class anyway."""
    return np.where(np.abs(labels) < 1 << 31, labels, -2).astype(np.int32)


def _labels(
    records: TfdsRecords, prepared: int | str, threads: int, chunk: int = 1024
) -> np.ndarray:
    """All labels, int32; they lie beside the images, so a first pass reads all and keeps them.

    Args:
      prepared: tells one preparation of the set from another.
    """
    key = hashlib.sha256(f"{records.title}:{len(records)}:{prepared}".encode()).hexdigest()[:16]
    path = cache_folder() / "labels" / f"{key}.npy"
    kept = _kept(path, len(records))
    if kept is not None:
        return kept
    starts = range(0, len(records), chunk)

    def read(start: int) -> list[int]:
        return [records.label(i) for i in range(start, min(start + chunk, len(records)))]

    with ThreadPoolExecutor(threads) as pool:
        parts = tqdm(
            pool.map(read, starts),
            desc="labels, kept for the next time",
            total=len(starts),
            leave=False,
            disable=None,
        )
        labels = _small(np.array([label for part in parts for label in part], np.int64))
    with contextlib.suppress(OSError):  # a cache that can't be written costs time, not the run
        _keep(path, labels)
    return labels


def _kept(path: pathlib.Path, count: int) -> np.ndarray | None:
    """Labels that `_keep` wrote; None where the file is missing, another's or damaged."""
    with contextlib.suppress(OSError, ValueError):
        # As a map, so that nothing is allocated for what a damaged header claims.
        sealed = np.lib.format.open_memmap(path, mode="r")
        if sealed.shape == (count + 1,) and sealed.dtype == np.int32:
            labels = np.array(sealed[:-1])
            if _digest(labels) == sealed[-1]:
                return labels
    return None


def _keep(path: pathlib.Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.npy")
    np.save(part, np.append(labels, _digest(labels)))
    os.replace(part, path)


def _digest(labels: np.ndarray) -> np.int32:
    return np.uint32(zlib.crc32(labels.tobytes())).view(np.int32)
