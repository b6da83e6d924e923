"""An export's folder: written beside its place, verified, and only then there."""

import dataclasses
import os
import pathlib
import shutil
from typing import NamedTuple

import jax
import numpy as np

from furs_jax.errors import WorkdirError
from furs_jax.export import Format, Record, load_format
from furs_jax.export._card import model_card
from furs_jax.export._verify import Verification, find_runner, verify
from furs_jax.jobs.exported import RECORD, describe, digest_of_file
from furs_jax.jobs.predicting import TrainedNetwork
from furs_jax.machine.sealed import sync_folder, temporary, write_json, write_text


class Wanted(NamedTuple):
    """What is to be written how.

    Attributes:
      name: of the format.
      folder: must not be there yet.
      python: the Python that runs what was written.
      fold: make BatchNorms parts of the layers before them.
      own: the name of the user's own network, where it is one.
    """

    name: str
    folder: pathlib.Path
    python: str
    fold: bool = False
    own: str | None = None


def check(wanted: Wanted) -> tuple[Format, str]:
    """Refuses what can't be, before anything is computed.

    Returns:
      The format, and the versions of what runs it.

    Raises:
      ConfigError: there is no such format, or it folds nothing.
      MissingExtraError: what writes it is not installed.
      ExportError: nothing could run it.
      WorkdirError: the folder is there.
    """
    form = load_format(wanted.name, wanted.fold)
    if wanted.folder.exists():
        raise WorkdirError(f"{wanted.folder} exists; give another --out, or move it")
    return form, find_runner(form, wanted.python)


def write_export(
    wanted: Wanted, found: TrainedNetwork, images: np.ndarray, about: Record, told: str = ""
) -> Verification:
    """Writes a network, verified; after an error nothing is there.

    Args:
      wanted: see `check`.
      found: it is written as it computes in float32.
      images: uint8, shape (N, H, W, C), to compare with Flax on.
      about: what export.json holds of its training.
      told: Markdown, of its training and its figures, for the model card.

    Raises:
      ConfigError: the format can't hold the network.
      ExportError: what was written can't be run, or computes something else.
    """
    form, versions = check(wanted)
    found = dataclasses.replace(found, dtype="float32")
    record = {**describe(found), "versions": {"jax": jax.__version__}, **about}
    unfinished = temporary(wanted.folder)
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed
    unfinished.mkdir(parents=True)
    try:
        form.write(found, unfinished, record, wanted.fold)
        record["digests"] = {file.name: digest_of_file(file) for file in unfinished.iterdir()}
        write_json(unfinished / RECORD, {"format": wanted.name, **record})
        logits = found.logits(images)
        runner = wanted.python, versions, wanted.own
        verified = verify(form, unfinished, images, logits, *runner)
        whole = {"format": wanted.name, **record, "verified": verified._asdict()}
        write_json(unfinished / RECORD, whole)
        card = model_card(form, wanted.name, found, verified, told)
        write_text(unfinished / "README.md", card)
        os.rename(unfinished, wanted.folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(wanted.folder.parent)
    return verified
