"""Classification folders: DIR/train/CLASS/*.JPEG and DIR/val/CLASS/*.JPEG, or DIR/CLASS/*.JPEG."""

import array
import collections
import dataclasses
import os
import pathlib
import unicodedata
from typing import NamedTuple

import numpy as np

from furs_jax.errors import DataError

EXTENSIONS = (
    *(".jpeg", ".jpg", ".jpe", ".jfif", ".jfi", ".jif"),
    *(".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
_TEST_NAMES = ("val", "validation", "valid", "test")  # the first that exists
_PARTS = {"train", "training", "testing", "eval", "dev", *_TEST_NAMES}  # no class is called so


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


class Scan(NamedTuple):
    """A classification folder; labels are int32, the place of the class among the sorted names."""

    train: FolderFiles
    train_labels: np.ndarray
    class_folders: tuple[str, ...]  # of train
    summary: str  # what is read and what is left out, in one line
    test: tuple[FolderFiles, np.ndarray] | None = None  # None: there is no such part


def scan(folder: pathlib.Path) -> Scan:
    """Lists a classification folder.

    Read are files with one of `EXTENSIONS`, in class folders and below them. Names that begin with
    a dot are left out. Links are followed; a file that several names in a class lead to counts
    once, and none may be in two classes, or in both train and test. Where there is neither of
    these, the folder's own folders are the classes.

    Raises:
      DataError: the layout is another one, a class is empty, the classes of both parts differ, or
        an image is in two places.
    """
    try:
        return _scan(folder)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} can't be read ({error.strerror or error}); look why"
        ) from error


def _scan(folder: pathlib.Path) -> Scan:
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; folder:DIR needs one with a folder of images for each "
            "class, or with the folders train and val, which have those"
        )
    test = next((name for name in _TEST_NAMES if (folder / name).is_dir()), None)
    whole = folder / "train" if (folder / "train").is_dir() else folder
    others = set() if test else {name for name in os.listdir(folder) if name.lower() in _PARTS}
    if (test and whole == folder) or others - {whole.name}:
        raise DataError(
            f"{folder} should have the folders train and val, with a folder of images for each "
            "class in both (train/CLASS/*.JPEG, val/CLASS/*.JPEG), or a folder for each class alone"
            f" (CLASS/*.JPEG); it has {', '.join(sorted(map(_shown, others or [test])))}"
        )
    left_out = _LeftOut(folder)
    parts = [whole, *([folder / test] if test else [])]
    names = [_classes(part, left_out) for part in parts]
    classes = sorted(names[0])
    if len(classes) < 2:
        raise DataError(
            f"{whole} has one folder, {_shown(names[0][classes[0]])}; it should have one for each "
            "class"
        )
    if classes != sorted(names[-1]):
        odd = sorted(set(names[0]) ^ set(names[1]))
        raise DataError(
            f"{folder / 'train'} has {len(names[0])} classes and {folder / test} "
            f"{len(names[1])}; both need the same. Only one of them has: "
            f"{', '.join(map(_shown, odd[:5]))}{', ...' if len(odd) > 5 else ''}"
        )
    found = [_Part(part) for part in parts]
    for part, real_names in zip(found, names, strict=True):
        for label, key in enumerate(classes):
            part.add_class(real_names[key], label, left_out)
    _check_links(found, left_out)
    train, *tested = (part.files() for part in found)
    summary = f"folder:{folder}: {len(train[0]):,} images of {len(classes):,} classes"
    if tested:
        summary += f" to train on and {len(tested[0][0]):,} in {test}"
    folders = tuple(str(whole / names[0][key]) for key in classes)
    return Scan(*train, folders, f"{summary}{left_out}", *tested)


class _LeftOut:
    """Counts of what is not read, by kind, with the first of each."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._counts: collections.Counter[str] = collections.Counter()
        self._first: dict[str, str] = {}

    def add(self, kind: str, path: str, count: int = 1) -> None:
        self._counts[kind] += count
        self._first.setdefault(kind, os.path.relpath(path, self._folder))

    def __str__(self) -> str:
        kinds = [
            f"{count:,} {kind} (such as {_shown(self._first[kind])})"
            for kind, count in self._counts.items()
            if count
        ]
        return f"; left out: {', '.join(kinds)}" if kinds else ""


def _classes(folder: pathlib.Path, left_out: _LeftOut) -> dict[str, str]:
    """The class folders' names, by their normal form: macOS writes accents otherwise than Linux."""
    found: dict[str, str] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            left_out.add("hidden", entry.path, _count_files(entry))
        elif not entry.is_dir():
            left_out.add("outside of the class folders", entry.path)
        else:
            key = unicodedata.normalize("NFC", entry.name)
            if key in found:
                raise DataError(
                    f"{folder} has two folders whose names look the same, {found[key]!a} and "
                    f"{entry.name!a}; merge them, or rename one"
                )
            found[key] = entry.name
    if not found:
        raise DataError(f"{folder} has no folders: it should have one for each class")
    return found


class _Part:
    """The image files of train or of test."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.paths: list[str] = []  # below the folder
        self.labels: list[int] = []
        self.identities = array.array("Q"), array.array("Q")  # device and inode of each

    def add_class(self, name: str, label: int, left_out: _LeftOut) -> None:
        others: collections.Counter[str] = collections.Counter()
        found = sorted(_images(str(self.folder / name), left_out, set(), others))
        if not found:
            held = ", ".join(
                f"{n} of {kind or 'no extension'}" for kind, n in others.most_common(3)
            )
            raise DataError(
                f"{_shown(str(self.folder / name))} has no image ({', '.join(EXTENSIONS)})"
                f"{f', but files of other kinds: {held}' if held else ''}; add some, or remove the "
                "class from train and val"
            )
        for path, device, inode in found:
            self.paths.append(os.path.relpath(path, self.folder))
            self.labels.append(label)
            self.identities[0].append(device)
            self.identities[1].append(inode)

    def files(self) -> tuple[FolderFiles, np.ndarray]:
        paths = np.array([os.fsencode(path) for path in self.paths])
        return FolderFiles(str(self.folder), paths), np.array(self.labels, np.int32)


def _images(
    folder: str,
    left_out: _LeftOut,
    seen: set[tuple[int, int]],
    others: collections.Counter[str],
) -> list[tuple[str, int, int]]:
    """Path, device and inode of the image files of the folder and those below it.

    Args:
      seen: folders that are listed already: links may lead there again, also in a circle.
      others: counts the extensions of files of other kinds.
    """
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in seen:
        left_out.add("links to folders that are read already", folder)
        return []
    seen.add((here.st_dev, here.st_ino))
    found = []
    for entry in os.scandir(folder):
        is_link = entry.is_symlink()
        if entry.name.startswith("."):
            left_out.add("hidden", entry.path, _count_files(entry))
        elif is_link and not os.path.exists(entry.path):
            left_out.add("links to nothing", entry.path)
        elif entry.is_dir():
            found += _images(entry.path, left_out, seen, others)
        elif not entry.is_file() or _extension(entry.name) not in EXTENSIONS:
            left_out.add("of other kinds", entry.path)
            others[_extension(entry.name)] += 1
        elif is_link:
            status = entry.stat()
            found.append((entry.path, status.st_dev, status.st_ino))
        else:  # without a look at each of a million files
            found.append((entry.path, here.st_dev, entry.inode()))
    return found


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _count_files(entry: os.DirEntry) -> int:
    """Of a hidden folder those in it, else one."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(names) for _, _, names in os.walk(entry.path))


def _check_links(parts: list[_Part], left_out: _LeftOut) -> None:
    """Leaves out second names of a file in its class; refuses them in other classes or parts."""
    identities = [np.concatenate([part.identities[i] for part in parts]) for i in (0, 1)]
    order = np.lexsort(identities)  # stable: files of one identity stay in order
    same = np.all([np.diff(values[order]) == 0 for values in identities], axis=0)
    boundary = len(parts[0].paths)

    def place(number: int) -> tuple[_Part, int]:
        return (parts[0], number) if number < boundary else (parts[1], number - boundary)

    again: list[int] = []
    shared: list[tuple[str, str]] = []  # by train and test
    for first, second in zip(order[:-1][same], order[1:][same], strict=True):
        (part, i), (other, j) = place(int(first)), place(int(second))
        paths = tuple(str(p.folder / p.paths[k]) for p, k in ((part, i), (other, j)))
        # Some file systems give several files one inode in a listing.
        if not os.path.samefile(*paths):
            continue
        if part is not other:
            shared.append(paths)
        elif part.labels[i] != part.labels[j]:
            raise DataError(
                f"{_shown(paths[0])} and {_shown(paths[1])} are one file, in two classes; remove "
                "one of the two links"
            )
        else:
            again.append(int(second))
            left_out.add("links to images that are read already", paths[1])
    if shared:
        more = f" (and {len(shared) - 1:,} more)" if len(shared) > 1 else ""
        raise DataError(
            f"{_shown(shared[0][0])} and {_shown(shared[0][1])} are one file{more}: an image that "
            "is trained on can't be tested on; remove one of the two links"
        )
    for number in sorted(again, reverse=True):
        part, i = place(number)
        del part.paths[i], part.labels[i]


def _shown(name: str) -> str:
    """The name, with its codes where another may look the same."""
    if name.isascii():
        return name
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return ascii(name)
    return f"{name} ({name!a})"
