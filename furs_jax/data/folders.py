"""Classification folders: DIR/train/CLASS/*.JPEG and DIR/val/CLASS/*.JPEG."""

import dataclasses
import os
import pathlib

import numpy as np

from furs_jax.errors import DataError

EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_TEST_NAMES = ("val", "validation", "valid", "test")  # the first that exists


@dataclasses.dataclass(frozen=True)
class FolderFiles:
    """The image files of a folder, as `disk.Records`."""

    folder: str
    paths: np.ndarray  # bytes, shape (N,): below the folder; small, as millions may be pickled

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.paths[number]))

    def read(self, number: int) -> bytes:
        return pathlib.Path(self.name(number)).read_bytes()


def scan(folder: pathlib.Path) -> tuple[FolderFiles, np.ndarray, FolderFiles, np.ndarray, int]:
    """Lists a classification folder.

    Returns:
      Training files, their labels (int32: the place of the class among the sorted class names),
      test files, their labels, and the number of classes.

    Raises:
      DataError: the layout is another one, a class is empty, or the classes of both parts differ.
    """
    test = next((name for name in _TEST_NAMES if (folder / name).is_dir()), None)
    if not (folder / "train").is_dir() or test is None:
        raise DataError(
            f"{folder} should have the folders train and val, with a folder of images for each "
            "class in both (train/CLASS/*.JPEG, val/CLASS/*.JPEG)"
        )
    classes = [_classes(folder / part) for part in ("train", test)]
    if classes[0] != classes[1]:
        odd = sorted(set(classes[0]) ^ set(classes[1]))
        raise DataError(
            f"{folder / 'train'} has {len(classes[0])} classes and {folder / test} "
            f"{len(classes[1])}; both need the same. Only one of them has: {', '.join(odd[:5])}"
            f"{', ...' if len(odd) > 5 else ''}"
        )
    parts = [_files(folder / part, classes[0]) for part in ("train", test)]
    return *parts[0], *parts[1], len(classes[0])


def _classes(folder: pathlib.Path) -> list[str]:
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise DataError(f"{folder} has no folders: it should have one for each class")
    return names


def _files(folder: pathlib.Path, classes: list[str]) -> tuple[FolderFiles, np.ndarray]:
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = _images(folder / name)
        if not found:
            raise DataError(
                f"{folder / name} has no image ({', '.join(EXTENSIONS)}); add some, or "
                "remove the class from train and val"
            )
        paths += [os.fsencode(os.path.relpath(path, folder)) for path in found]
        labels += [label] * len(found)
    return FolderFiles(str(folder), np.array(paths)), np.array(labels, np.int32)


def _images(folder: pathlib.Path) -> list[str]:
    """Image files of the folder and those below it, sorted."""
    return sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")
    )
