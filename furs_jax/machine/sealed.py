"""JSON files that survive a kill at any instant, and tell when they have changed since.

What is written carries a digest, and what is read is checked against it: damage is an error that
names the file. Files of versions before digests are read without.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import zlib
from typing import Any

from furs_jax.errors import DamagedError, DivergedError
from furs_jax.machine import hosts

Record = dict[str, Any]

DIGEST = "crc32"  # the field of a JSON object that holds the digest of the others
# What to do about damage.
RESTORE = "Restore the file, or use another folder"
AGAIN = "Restore the file, or delete it: the same command makes it again"


def digest_of(record: Record, before: str = "") -> str:
    """Eight hexadecimal digits that hardly any other record has, or after another `before`.

    Raises:
      ValueError: a number is not finite.
    """
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return f"{zlib.crc32(text.encode(), int(before or '0', 16)):08x}"


def seal(record: Record) -> Record:
    """The record with its digest."""
    return {**record, DIGEST: digest_of(record)}


def unseal(text: str) -> Record:
    """The record that was sealed, or written without a digest, from its JSON.

    Raises:
      ValueError: it is another one now.
    """
    record, stored = parse_json(text)
    if stored not in (None, digest_of(record)):
        raise ValueError("it has changed since it was written")
    return record


def parse_json(text: str) -> tuple[Record, str | None]:
    """A JSON object and the digest in it, if any."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    last, value = next(reversed(record.items()), ("", None))
    if last != DIGEST and isinstance(value, str) and re.fullmatch("[0-9a-f]{8}", value):
        raise ValueError(f"its digest is called {last!r}")
    return record, record.pop(DIGEST, None)


def read_json(path: pathlib.Path, way_on: str = RESTORE) -> Record:
    """A file of one JSON object.

    Args:
      path: the file.
      way_on: what to do where it is damaged.

    Raises:
      DamagedError: it is not as it was written.
      FileNotFoundError: there is none.
    """
    text = read_text(path)
    try:
        return unseal(text)
    except ValueError as error:
        raise damaged(path, str(error), way_on) from error


def damaged(path: pathlib.Path, reason: str, way_on: str = RESTORE) -> DamagedError:
    return DamagedError(f"{path} is damaged: {reason}. {way_on}")


def read_text(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode()  # read_text would take a carriage return for a new line
    except FileNotFoundError:
        raise
    except OSError as error:
        raise damaged(path, f"it can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is no text") from error


def write_json(path: pathlib.Path, record: Record) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      DivergedError: a number is not finite.
    """
    check_finite(record)
    write_text(path, json.dumps(seal(record), indent=2) + "\n")


def check_finite(record: Record) -> None:
    if name := _not_finite(record):
        raise DivergedError(f"{name}, and can't be recorded; lower the learning rate")


def _not_finite(value: Any, name: str = "") -> str:
    """Says which number JSON can't hold; empty where there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name.strip('.')} is {value}"
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list | tuple) else items
    return next(filter(None, (_not_finite(x, f"{name}.{key}") for key, x in items)), "")


def temporary(path: pathlib.Path) -> pathlib.Path:
    """What a kill may leave of a file beside it."""
    return path.with_name(f".{path.name}.tmp")


def write_text(path: pathlib.Path, text: str) -> None:
    if not hosts.is_first():
        return
    unfinished = temporary(path)
    with open(unfinished, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Waits until the disk has the folder's new names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
