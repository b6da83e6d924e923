"""A run's folder: its file names, and files that survive a kill at any instant."""

import fcntl
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from furs_jax import hosts, options, paths
from furs_jax.errors import WorkdirBusyError, WorkdirError

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


class Workdir:
    """The folder of one run. It belongs to one config and to one process at a time.

    On several hosts it is the first one's: the others need not see it, and get what it reads.

    A new run's folder is made by `start` only, so that a mistake found before leaves nothing.

    Attributes:
      path: the folder.
      config: path of the resolved config, with versions and devices.
      metrics, rounds, finals: journals of epochs, rounds and final trainings.
      result: path of the final result.
      checkpoints: folder of the checkpoints.
    """

    def __init__(self, path: str | os.PathLike, config: Record):
        """Opens the folder of a run, or makes sure that a new run may have it.

        Args:
          path: the folder.
          config: the resolved config, as JSON can hold it.

        Raises:
          WorkdirError: the folder holds a run of another config, files that are no run's, or
            another process uses it.
        """
        self._lock_file = None
        self.path = pathlib.Path(paths.resolve(path, "workdir="))
        self.result = self.path / "result.json"
        self.checkpoints = self.path / "checkpoints"
        self.config = self.path / "config.json"
        self.metrics = Journal(self.path / "metrics.jsonl")
        self.rounds = Journal(self.path / "rounds.jsonl")
        self.finals = Journal(self.path / "finals.jsonl")
        hosts.from_first(lambda: self._open(config))
        hosts.agree("the config", config)

    def _open(self, config: Record) -> None:
        self._check(config)
        if self.config.exists():
            self._lock()
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

    def _check(self, config: Record) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise WorkdirError(f"workdir {self.path} is a file; give a folder")
        if self.config.exists():
            stored = read_json(self.config)["config"]
            differing = [
                line
                for line in _differences(stored, config)
                if line.partition(" ")[0].removeprefix("config.") not in HARMLESS
            ]
            if differing:
                raise WorkdirError(
                    f"workdir {self.path} holds a run of another config, which differs in "
                    f"{', '.join(differing)}. Give another --workdir, or that "
                    "run's own options to go on with it"
                )
        elif self.path.exists() and set(os.listdir(self.path)) - {".lock"}:
            raise WorkdirError(
                f"workdir {self.path} holds files but no config.json, so it is not a run's; "
                "give a new or an empty folder"
            )

    def _lock(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        # Released by the system when the process ends, however it ends.
        self._lock_file = open(self.path / ".lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirBusyError(f"workdir {self.path} is in use by another process") from error

    def start(self, config: Record, environment: Record) -> Record:
        """Writes config.json unless this run has one already; returns the stored environment.

        Raises:
          WorkdirError: another process has begun in the folder meanwhile.
        """

        def stored() -> Record:
            if self._lock_file is None:
                self._lock()
                self._check(config)
            if not self.config.exists():
                write_json(self.config, {"config": config, **environment})
            stored = read_json(self.config)
            return {key: stored.get(key) for key in environment}

        return hosts.from_first(stored)

    def read_result(self) -> Record | None:
        """The final result; None where the run isn't finished."""
        return hosts.from_first(lambda: read_json(self.result) if self.result.exists() else None)

    def close(self) -> None:
        """Lets another process use the folder."""
        if self._lock_file:
            self._lock_file.close()


class Journal:
    """A file of JSON lines that grows by one line at a time.

    A line cut off by a kill is dropped when the file is next opened.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def read(self) -> list[Record]:
        """All complete lines."""
        return hosts.from_first(lambda: [json.loads(line) for line in self._complete()])

    def append(self, record: Record) -> None:
        """Adds a line, and waits until the disk has it."""
        self.keep(lambda _: True)
        if not hosts.is_first():
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, wanted: Callable[[Record], bool]) -> None:
        """Drops the lines that aren't wanted, and one that was cut off."""
        if not hosts.is_first() or not self.path.exists():
            return
        kept = [line for line in self._complete() if wanted(json.loads(line))]
        text = "".join(line + "\n" for line in kept)
        if text != self.path.read_text():
            _write(self.path, text)

    def _complete(self) -> list[str]:
        return self.path.read_text().split("\n")[:-1] if self.path.exists() else []


def read_json(path: pathlib.Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    _write(path, json.dumps(value, indent=2) + "\n")


def _write(path: pathlib.Path, text: str) -> None:
    if not hosts.is_first():
        return
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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
    if stored == given or (options.is_path(option) and _same_path(stored, given)):
        return []
    return [f"{prefix} ({stored} there, {given} here)"]


def _same_path(stored: Any, given: Any) -> bool:
    return isinstance(stored, str) and isinstance(given, str) and paths.same(stored, given)
