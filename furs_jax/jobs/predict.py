"""mode=predict: the classes of images on disk, by a run's network or an export."""

import contextlib
import csv
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from furs_jax import paths
from furs_jax.data.batches import evaluation_batches
from furs_jax.data.disk import DiskSplit, Reading
from furs_jax.data.named_files import named_images, to_channels
from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.jobs.load import load
from furs_jax.jobs.predicting import Predictor
from furs_jax.machine.sealed import sync_folder, temporary
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import DataOptions, Options
from furs_jax.run.text import csv_text

_BATCH = 64  # images that are read together


def perform(
    options: Options, workdir: str | None, stop: Stop | None = None, files: Sequence[str] = ()
) -> None:
    """Writes a line for each image: its file, its class, and the probability of every class.

    Into predictions.csv of `workdir` where that is given, or else on the terminal. Names are
    written so that no spreadsheet takes one for a formula.
    """
    del stop
    if not options.init_from:
        raise ConfigError(
            "mode=predict needs a trained network: give as init_from a run's folder, such as "
            "runs/digits, a folder in its checkpoints/, or an export"
        )
    own = {"network": options.network, "cost": options.cost.resource}
    found = load(options.init_from, **{k: name for k, name in own.items() if ":" in name})
    rows = _rows(found, files, options.data)
    header = ["file", "class", "probability", *(f"p({name})" for name in found.classes)]
    with _output(workdir) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(map(csv_text, header))
        for name, probabilities in rows:
            best = int(np.argmax(probabilities))
            told = csv_text(name), csv_text(found.classes[best])
            shares = (probabilities[best], *probabilities)
            writer.writerow([*told, *(f"{share:.6f}" for share in shares)])


def read_images(found: Predictor, names: Sequence[str], most: int) -> np.ndarray:
    """The first images of files and folders, as the network takes them: uint8 (n, H, W, C).

    Raises:
      ConfigError, DataError, MissingExtraError: they can't be, or can't be read.
    """
    files, split = _split(found, names)
    images = split.examples(np.arange(min(most, len(files))))["image"]
    return to_channels(images, found.preprocessing.image_shape[-1])


def _split(found: Predictor, names: Sequence[str], **reading: Any) -> tuple[list[str], DiskSplit]:
    """The files, and what a network sees of them, but for its number of channels."""
    height, width, channels = found.preprocessing.image_shape
    if height != width:
        raise ConfigError(
            f"the network takes images of {height}x{width} pixels, and files are cut to squares; "
            "give arrays to furs_jax.load(PATH).predict"
        )
    to_channels(np.zeros((1, 1, 1, 3), np.uint8), channels)  # refused before files are read
    crop = found.preprocessing.eval_crop
    return named_images(names, Reading(image_size=height, eval_crop=crop, **reading))


def _rows(
    found: Predictor, files: Sequence[str], options: DataOptions
) -> Iterator[tuple[str, np.ndarray]]:
    """File and probabilities, shape (K,), of each image that can be read."""
    kept = {name: getattr(options, name) for name in ("workers", "prefetch", "on_corrupt")}
    names, split = _split(found, files, **kept)

    def rows() -> Iterator[tuple[str, np.ndarray]]:
        for batch in evaluation_batches(split, min(_BATCH, len(names))):
            images = to_channels(batch["image"], found.preprocessing.image_shape[-1])
            probabilities = found.predict(images)
            for place, weight, share in zip(
                batch["index"], batch["weight"], probabilities, strict=True
            ):
                if weight:
                    yield names[place], share

    return rows()


@contextlib.contextmanager
def _output(workdir: str | None) -> Iterator[TextIO | Any]:
    """Where lines go; a file is there when it is complete."""
    if workdir is None:
        yield sys.stdout
        return
    file = pathlib.Path(paths.resolve(workdir, "workdir=")) / "predictions.csv"
    if file.exists():
        raise WorkdirError(f"{file} exists; give another --workdir, or move it")
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(file)
    try:
        with open(unfinished, "w", newline="", errors="backslashreplace") as stream:
            yield stream
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(file.parent)
    print(file)
