"""A run's folder: its file names, and whose it is."""

import fcntl
import os
import pathlib
from typing import Any

from furs_jax import paths
from furs_jax.errors import WorkdirBusyError, WorkdirError
from furs_jax.machine import hosts
from furs_jax.machine.sealed import AGAIN, damaged, read_json, temporary, write_json
from furs_jax.options.parse import defaults, flat
from furs_jax.options.schema import AUTO, FITTED, OPTIONS, path_kind
from furs_jax.run import lines
from furs_jax.run.journal import Journal

Record = dict[str, Any]

# Options that a run may go on with changed, since they don't influence its result.
HARMLESS = {
    "checkpoint_seconds",
    "profile",
    "data.workers",
    "data.processes",
    "data.prefetch",
    "furs.memory_gib",
    "final.timed",
}


class Files:
    """The files of a run's folder, for those who only read them, too.

    Attributes:
      path: the folder.
      config: path of the resolved config, with versions and devices.
      metrics, rounds, finals: journals of epochs, rounds and final trainings.
      measured: journal of the found networks' times, where latency is budget or limit.
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
        self.measured = Journal(self.path / "measured.jsonl", lines.check_measured)
        self.finals = Journal(self.path / "finals.jsonl", lines.check_final)

    def trained(self, name: str) -> pathlib.Path | None:
        """The checkpoints of what a network's first training in the end has left, if there."""
        phases = (lines.pruned_phase(name, 0), lines.final_phase(name, 0))
        folders = [self.checkpoints / phase for phase in phases]
        return next((folder for folder in folders if folder.is_dir()), None)

    def read_config(self) -> Record:
        """What config.json holds: "config", and what else was known when the run began."""
        stored = read_json(self.config)
        if not isinstance(stored.get("config"), dict):
            raise damaged(self.config, 'it has no "config"')
        if isinstance(cost := stored["config"].get("cost"), str):  # of earlier versions
            stored["config"]["cost"] = {"resource": cost}
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
        for unfinished in self._temporaries():
            unfinished.unlink(missing_ok=True)

    def _temporaries(self) -> list[pathlib.Path]:
        """What a kill may leave beside the files, or before the first."""
        journals = (self.metrics, self.rounds, self.measured, self.finals)
        files = (self.config, self.result, *(journal.path for journal in journals))
        return [temporary(path) for path in files]

    def _check(self, config: Record) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise WorkdirError(f"workdir {self.path} is a file; give a folder")
        ours = {".lock", *(path.name for path in self._temporaries())}
        if self.config.exists():
            differing = [
                what
                for option, what in _differences(self.read_config()["config"], config)
                if option not in HARMLESS
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

    def begun_with(self) -> Record:
        """The options that the run began with, by name; none of a new run."""
        begun = hosts.from_first(lambda: self.read_config() if self.config.exists() else None)
        return dict(flat(begun["config"])) if begun else {}

    def close(self) -> None:
        """Lets another process use the folder."""
        if self._lock_file:
            self._lock_file.close()


def _differences(stored: Record, given: Record) -> list[tuple[str, str]]:
    """The options that differ, each with both values in words.

    An option that a run of an earlier version lacks had its default. One that fits itself is what
    the run that is there has chosen.
    """
    given, stored = dict(flat(given)), dict(flat(stored))
    stored = {option: defaults()[option] for option in given if option in OPTIONS} | stored
    nothing = object()
    return [
        (option, f"config.{option} ({there} there, {here} here)")
        for option in sorted(given.keys() | stored.keys())
        for there, here in [(stored.get(option, nothing), given.get(option, nothing))]
        if there != here
        and not (path_kind(option) and _same_path(there, here))
        and not (option in FITTED and here == AUTO)
    ]


def _same_path(stored: Any, given: Any) -> bool:
    return isinstance(stored, str) and isinstance(given, str) and paths.same(stored, given)
