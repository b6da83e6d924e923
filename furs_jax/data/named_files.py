"""Images that the user names: files, and folders of them."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from furs_jax import paths
from furs_jax.data.disk import DiskSplit, Reading, split_on_disk
from furs_jax.data.folders import EXTENSIONS, FolderFiles
from furs_jax.errors import ConfigError, DataError

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as JPEG and Pillow take it


def named_images(names: Sequence[str], reading: Reading) -> tuple[list[str], DiskSplit]:
    """The files, and a split of their central crops, uint8 (N, S, S, 3), with labels of zero.

    Args:
      names: files, read whatever they are called, and folders, of which all images are read, those
        in folders below them, too, in order of their names; hidden ones are left out.
      reading: how.

    Raises:
      ConfigError: none is named.
      DataError: one isn't there, or a folder has no image.
      MissingExtraError: what decodes them is not installed.
    """
    if not names:
        raise ConfigError("name the images to be classified: files, or folders of them")
    files = [file for name in names for file in _files(paths.resolve(name, "FILES: "))]
    here = os.getcwd()
    shown = [os.path.relpath(file, here) if _below(file, here) else file for file in files]
    records = FolderFiles("/", np.array([os.fsencode(file) for file in files]))
    return shown, split_on_disk(records, np.zeros(len(files), np.int32), reading)


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """RGB images, uint8 (N, H, W, 3), as of so many channels: grey where that is one.

    Raises:
      ConfigError: it is neither 1 nor 3.
    """
    if channels == 3:
        return images
    if channels != 1:
        raise ConfigError(
            f"the network takes images of {channels} channels, which image files don't have; give "
            "arrays to furs_jax.load(PATH).predict"
        )
    return np.rint(images @ _LUMA).astype(np.uint8)[..., None]


def _files(name: str) -> list[str]:
    path = pathlib.Path(name)
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"there is no file or folder {name}")
        return [name]
    found = sorted(
        str(file)
        for file in path.rglob("*")
        if file.suffix.lower() in EXTENSIONS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise DataError(f"{name} has no image ({', '.join(EXTENSIONS)})")
    return found


def _below(file: str, folder: str) -> bool:
    return pathlib.Path(folder) in pathlib.Path(file).parents
