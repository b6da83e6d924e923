"""A run's folder: its file names, and files that survive a kill at any instant.

What is written carries a digest, and what is read is checked against it: damage is an error that
names the file. Files of versions before digests are read without.
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable
from typing import Any

from furs_jax import paths
from furs_jax.errors import DamagedError, DivergedError, WorkdirBusyError, WorkdirError
from furs_jax.machine import hosts
from furs_jax.options.schema import path_kind
from furs_jax.run import lines

Record = dict[str, Any]

# Options that a run may go on with changed, since they don't influence its result.
HARMLESS = {
    "checkpoint_seconds",
    "profile",
    "data.workers",
    "data.processes",
    "data.prefetch",
    "furs.memory_gib",
}
# Options that came later, and what runs did before: config.json of older runs has none of them.
ADDED = {"config.init_head": "load"}
# What to do about damage.
_RESTORE = "Restore the file, or use another folder"
AGAIN = "Restore the file, or delete it: the same command makes it again"

DIGEST = "crc32"  # the field of a JSON object that holds the digest of the others


class Files:
    """The files of a run's folder, for those who only read them, too.

    Attributes:
      path: the folder.
      config: path of the resolved config, with versions and devices.
      metrics, rounds, finals: journals of epochs, rounds and final trainings.
      result: path of the final result.
      checkpoints: folder of the checkpoints.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(paths.resolve(path, "workdir="))
        self.result = self.path / "result.json"
        self.checkpoints = self.path / "checkpoints"
        self.config = self.path / "config.json"
        self.metrics = Journal(self.path / "metrics.jsonl", lines.check_epoch)
        self.rounds = Journal(self.path / "rounds.jsonl", lines.check_round)
        self.finals = Journal(self.path / "finals.jsonl", lines.check_final)

    def read_config(self) -> Record:
        """What config.json holds: "config", and what else was known when the run began."""
        stored = read_json(self.config)
        if not isinstance(stored.get("config"), dict):
            raise damaged(self.config, 'it has no "config"')
        return stored

    def read_result(self) -> Record | None:
        """The final result; None where the run isn't finished."""
        return hosts.from_first(
            lambda: read_json(self.result, AGAIN) if self.result.exists() else None
        )


class Workdir(Files):
    """The folder of one run. It belongs to one config and to one process at a time.

    On several hosts it is the first one's: the others need not see it, and get what it reads.

    A new run's folder is made by `start` only, so that a mistake found before leaves nothing.
    """

    def __init__(self, path: str | os.PathLike, config: Record):
        """Opens the folder of a run, or makes sure that a new run may have it.

        Args:
          path: the folder.
          config: the resolved config, as JSON can hold it.

        Raises:
          WorkdirError: the folder holds a run of another config, files that are no run's, a damaged
            config.json, or another process uses it.
        """
        super().__init__(path)
        self._lock_file = None
        hosts.from_first(lambda: self._open(config))
        hosts.agree("the config", config)

    def _open(self, config: Record) -> None:
        self._check(config)
        if self.config.exists():
            self._own(config)
        else:
            self._check_place()

    def _check_place(self) -> None:
        """Raises WorkdirError where the folder could not be made or written to."""
        nearest = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise WorkdirError(
                f"workdir {self.path} can't be written: {nearest} is "
                f"{'not yours to write to' if nearest.is_dir() else 'a file'}; give another folder"
            )

    def _own(self, config: Record) -> None:
        """Takes the folder and removes what a kill left half written."""
        self._lock()
        self._check(config)  # another process may have begun a run, and ended, since
        for temporary in self._temporaries():
            temporary.unlink(missing_ok=True)

    def _temporaries(self) -> list[pathlib.Path]:
        """What a kill may leave beside the files, or before the first."""
        journals = (self.metrics, self.rounds, self.finals)
        files = (self.config, self.result, *(journal.path for journal in journals))
        return [_temporary(path) for path in files]

    def _check(self, config: Record) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise WorkdirError(f"workdir {self.path} is a file; give a folder")
        ours = {".lock", *(path.name for path in self._temporaries())}
        if self.config.exists():
            differing = [
                line
                for line in _differences(self.read_config()["config"], config)
                if line.partition(" ")[0].removeprefix("config.") not in HARMLESS
            ]
            if differing:
                raise WorkdirError(
                    f"workdir {self.path} holds a run of another config, which differs in "
                    f"{', '.join(differing)}. Give another --workdir, or that "
                    "run's own options to go on with it"
                )
        elif self.path.exists() and set(os.listdir(self.path)) - ours:
            raise WorkdirError(
                f"workdir {self.path} holds files but no config.json, so it is not a run's; "
                "give a new or an empty folder"
            )

    def _lock(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # Released by the system when the process ends, however it ends.
        try:
            self._lock_file = open(self.path / ".lock", "w")  # noqa: SIM115
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirBusyError(f"workdir {self.path} is in use by another process") from error
        except IsADirectoryError as error:
            raise WorkdirError(f"{self.path}/.lock is a folder; remove it") from error

    def start(self, config: Record, environment: Record) -> Record:
        """Writes config.json unless this run has one already; returns the stored environment.

        Raises:
          WorkdirError: another process has begun in the folder meanwhile.
        """

        def stored() -> Record:
            if self._lock_file is None:
                self._own(config)
            if not self.config.exists():
                write_json(self.config, {"config": config, **environment})
            stored = self.read_config()
            return {key: stored.get(key) for key in environment}

        return hosts.from_first(stored)

    def close(self) -> None:
        """Lets another process use the folder."""
        if self._lock_file:
            self._lock_file.close()


class Journal:
    """A file of JSON lines that grows by one line at a time.

    A line's digest is that of all lines up to it, so that none can change, vanish or come twice.
    Timings ("seconds") are left out, so that two runs of a config have the same digests. A line cut
    off by a kill is none yet, and dropped when the next is written.
    """

    def __init__(self, path: pathlib.Path, check: Callable[[Record], None] = lambda record: None):
        """
        Args:
          path: the file.
          check: raises ValueError, with a reason, for what can't be a line.
        """
        self.path = path
        self._check = check

    def read(self) -> list[Record]:
        """All complete lines.

        Raises:
          DamagedError: one is not as it was written.
        """
        return hosts.from_first(lambda: self._read()[0])

    def _read(self) -> tuple[list[Record], str]:
        """All complete lines and the last one's digest."""
        records, digest, sealed = [], "", False
        text = _read(self.path) if self.path.exists() else ""
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                record, stored = _parse(line)
                digest, sealed = _next_digest(record, digest), sealed or stored is not None
                if sealed and stored != digest:
                    raise ValueError("it or a line before has changed since it was written")
                self._check(record)
            except ValueError as error:
                raise self.damaged(number, str(error)) from error
            records.append(record)
        return records, digest

    def damaged(self, number: int, reason: str) -> DamagedError:
        """The error of the line of that number, from 1."""
        return DamagedError(
            f"{self.path} is damaged in line {number}: {reason}. Restore the file, or delete this "
            "line and all after it: what a search needs of them it computes again"
        )

    def append(self, record: Record) -> None:
        """Adds a line, and waits until the disk has it.

        Raises:
          DivergedError: a number is not finite.
        """
        if not hosts.is_first():
            return
        _check_finite(record)
        begins, digest = not self.path.exists(), self._keep(lambda _: True)
        with open(self.path, "a") as file:
            file.write(_line(record, _next_digest(record, digest)))
            file.flush()
            os.fsync(file.fileno())
        if begins:
            _sync_folder(self.path.parent)

    def keep(self, wanted: Callable[[Record], bool]) -> None:
        """Drops the lines that aren't wanted, and one that was cut off."""
        if hosts.is_first():
            self._keep(wanted)

    def _keep(self, wanted: Callable[[Record], bool]) -> str:
        """Returns the digest of the last line."""
        digest, text = "", ""
        for record in self._read()[0]:
            if wanted(record):
                digest = _next_digest(record, digest)
                text += _line(record, digest)
        if self.path.exists() and text != _read(self.path):
            _write(self.path, text)
        return digest


def _line(record: Record, digest: str) -> str:
    return json.dumps({**record, DIGEST: digest}) + "\n"


def _next_digest(record: Record, before: str) -> str:
    return digest_of({key: value for key, value in record.items() if key != "seconds"}, before)


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
    record, stored = _parse(text)
    if stored not in (None, digest_of(record)):
        raise ValueError("it has changed since it was written")
    return record


def _parse(text: str) -> tuple[Record, str | None]:
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


def read_json(path: pathlib.Path, way_on: str = _RESTORE) -> Record:
    """A file of one JSON object.

    Args:
      path: the file.
      way_on: what to do where it is damaged.

    Raises:
      DamagedError: it is not as it was written.
      FileNotFoundError: there is none.
    """
    text = _read(path)
    try:
        return unseal(text)
    except ValueError as error:
        raise damaged(path, str(error), way_on) from error


def damaged(path: pathlib.Path, reason: str, way_on: str = _RESTORE) -> DamagedError:
    return DamagedError(f"{path} is damaged: {reason}. {way_on}")


def _read(path: pathlib.Path) -> str:
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
    _check_finite(record)
    _write(path, json.dumps(seal(record), indent=2) + "\n")


def _check_finite(record: Record) -> None:
    if name := _not_finite(record):
        raise DivergedError(f"{name}, and can't be recorded; lower the learning rate")


def _not_finite(value: Any, name: str = "") -> str:
    """Says which number JSON can't hold; empty where there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name.strip('.')} is {value}"
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list | tuple) else items
    return next(filter(None, (_not_finite(x, f"{name}.{key}") for key, x in items)), "")


def _temporary(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.tmp")


def _write(path: pathlib.Path, text: str) -> None:
    if not hosts.is_first():
        return
    temporary = _temporary(path)
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    """Waits until the disk has the folder's new names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _differences(stored: Any, given: Any, prefix: str = "config") -> list[str]:
    """Names the options that differ, with both values."""
    if isinstance(stored, dict) and isinstance(given, dict):
        missing = object()
        return [
            line
            for key in sorted(stored.keys() | given.keys())
            for line in _differences(
                stored.get(key, ADDED.get(f"{prefix}.{key}", missing)),
                given.get(key, missing),
                f"{prefix}.{key}",
            )
        ]
    option = prefix.removeprefix("config.")
    if stored == given or (path_kind(option) and _same_path(stored, given)):
        return []
    return [f"{prefix} ({stored} there, {given} here)"]


def _same_path(stored: Any, given: Any) -> bool:
    return isinstance(stored, str) and isinstance(given, str) and paths.same(stored, given)
