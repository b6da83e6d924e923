"""Splits whose images stay on disk, and the Grain pipeline that reads them."""

import dataclasses
import math
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from furs_jax.data.dataset import Batch, Read
from furs_jax.data.pixels import UnsupportedError
from furs_jax.errors import DataError, MissingExtraError
from furs_jax.machine.cores import usable_cores

# Images that a thread reads at a time: few, so that a batch is shared out evenly over threads; more
# than one, so that Grain's own work per element doesn't count.
_CHUNK = 32
_DAMAGED_IN_A_ROW = 100


class Records(Protocol):
    """Encoded images by number; pickled where processes read."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> bytes: ...

    def name(self, number: int) -> str:
        """As the user would look for it."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read from disk: fields of config.data, explained in configs/default.py."""

    image_size: int = 224
    eval_crop: float = 0.875
    min_scale: float = 0.08
    workers: int = 0
    processes: int = 0
    prefetch: int = 2
    on_corrupt: str = "raise"

    @property
    def threads(self) -> int:
        """Threads that read in each process."""
        return self.workers or max(usable_cores() // max(self.processes, 1), 1)


@dataclasses.dataclass(frozen=True)
class DiskSplit:
    """Labelled images of any sizes on disk."""

    records: Records
    numbers: np.ndarray  # int64, shape (N,): which of the records
    labels: np.ndarray  # int32, shape (N,)
    reading: Reading

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.reading.image_size, self.reading.image_size, 3)

    @property
    def eval_crop(self) -> float:
        return self.reading.eval_crop

    def take(self, index: np.ndarray | slice) -> "DiskSplit":
        return dataclasses.replace(self, numbers=self.numbers[index], labels=self.labels[index])

    def joined(self, other: "DiskSplit") -> "DiskSplit":
        """The images of this split, then those of the other, which has the same records."""
        return dataclasses.replace(
            self,
            numbers=np.concatenate([self.numbers, other.numbers]),
            labels=np.concatenate([self.labels, other.labels]),
        )

    def examples(self, index: np.ndarray, crop_seed: tuple[int, ...] | None = None) -> Batch:
        """The images at `index`, decoded, cropped and resized.

        Args:
          index: places in the split, shape (n,).
          crop_seed: of random resized crops, which also depend on the image's place in the split;
            None for the central crop of evaluation.

        Returns:
          image uint8 (n, S, S, 3), label int32 (n,) and damaged bool (n,). With on_corrupt="skip" a
          damaged image is replaced by the next sound one of the split in training, by zeros in
          evaluation.

        Raises:
          DataError: names a damaged image, with on_corrupt="raise".
        """
        images = np.zeros((len(index), *self.image_shape), np.uint8)
        used = np.array(index)
        damaged = np.zeros(len(index), bool)
        for i in range(len(index)):
            while not self._decode(int(used[i]), crop_seed, images[i]):
                damaged[i] = True
                if crop_seed is None:
                    images[i] = 0
                    break
                used[i] = (used[i] + 1) % len(self.labels)
                if (used[i] - index[i]) % len(self.labels) in (0, _DAMAGED_IN_A_ROW):
                    raise DataError(
                        f"{_DAMAGED_IN_A_ROW} images in a row, or all, are damaged after "
                        f"{self.records.name(int(self.numbers[index[i]]))}; fetch the data again"
                    )
        return {"image": images, "label": self.labels[used], "damaged": damaged}

    def _decode(self, place: int, crop_seed: tuple[int, ...] | None, out: np.ndarray) -> bool:
        """Writes the image to `out`; False where it is damaged and to be skipped."""
        from furs_jax.data.decode import central_box, decode_crop, random_box

        def choose(height: int, width: int):
            if crop_seed is None:
                return central_box(height, width, self.reading.eval_crop)
            rng = np.random.default_rng((*crop_seed, place))
            return random_box(rng, height, width, self.reading.min_scale)

        number = int(self.numbers[place])
        try:
            decode_crop(self.records.read(number), choose, out)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                report, remedy = f"can't be read ({error.strerror or error})", "look why"
            elif isinstance(error, UnsupportedError):
                report, remedy = f"can't be used ({error})", "convert it"
            else:
                report, remedy = f"is no image or damaged ({error})", "fetch it again"
            report = f"{self.records.name(number)} {report}"
            if self.reading.on_corrupt == "raise":
                raise DataError(
                    f"{report}; {remedy}, remove it, or skip such images by "
                    "--config.data.on_corrupt=skip"
                ) from error
            warnings.warn(f"{report}; skipped", stacklevel=1)  # shown once for each image
            return False
        return True

    def batches(self, read: Read, steps: range, places: np.ndarray) -> Iterator[Batch]:
        """What `read` gives for each step, in order, read ahead by threads or processes.

        Measured on 2 busy cores: two threads read 400 images/s where two processes read 270 to 360
        and took 6 s to start, so threads are the default.
        """
        import grain
        from absl import flags

        chunk = math.gcd(len(places), _CHUNK)
        parts = places.reshape(-1, chunk)
        reading = self.reading
        ahead = reading.prefetch * len(parts)
        dataset = grain.MapDataset.source(_Chunks(read, steps, parts)).to_iter_dataset(
            grain.ReadOptions(reading.threads, max(ahead, reading.threads))
        )
        if reading.processes:
            if not flags.FLAGS.is_parsed():  # in a notebook or test; Grain's processes read flags
                flags.FLAGS.mark_as_parsed()
            each = max(ahead // reading.processes, 1)
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(reading.processes, each), _end_with_parent
            )
        chunks = iter(dataset)
        try:
            for _ in steps:
                batch = [next(chunks) for _ in parts]
                yield {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
        finally:
            chunks.close()


def _end_with_parent(index: int, count: int) -> None:
    """Ends this reading process when the one that started it is gone, even by SIGKILL.

    Grain's processes look only for a word of it, which a killed one can't give. Linux's
    PR_SET_PDEATHSIG would not do: it goes by the thread that started this process, which ends
    early.
    """
    del index, count
    # Sent to all processes of a terminal or a job: the parent saves first, and needs this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)  # other threads may wait for ever

    threading.Thread(target=watch, daemon=True).start()


def split_on_disk(records: Records, labels: np.ndarray, reading: Reading) -> DiskSplit:
    """All records as a split.

    Raises:
      MissingExtraError: what reads them is not installed.
    """
    try:
        import grain

        from furs_jax.data import decode
    except ImportError as error:
        raise MissingExtraError("images on disk", error.name, "images") from error
    del grain, decode
    return DiskSplit(records, np.arange(len(labels)), labels, reading)


@dataclasses.dataclass(frozen=True)
class _Chunks:
    """Grain's data source: all parts of all batches, in order."""

    read: Read
    steps: range
    parts: np.ndarray  # places, shape (parts of a batch, images in one)

    def __len__(self) -> int:
        return len(self.steps) * len(self.parts)

    def __getitem__(self, number: int) -> Batch:
        step, part = divmod(int(number), len(self.parts))
        return self.read(self.steps[step], self.parts[part])
