"""Journals: files of JSON lines that grow by one line at a time, each sealed with those before."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from furs_jax.errors import DamagedError
from furs_jax.machine import hosts
from furs_jax.machine.sealed import (
    DIGEST,
    check_finite,
    digest_of,
    parse_json,
    read_text,
    sync_folder,
    write_text,
)

Record = dict[str, Any]


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
        self.after: Callable[[], None] = lambda: None  # called when a line is written
        self._check = check
        # Size and time of the file as it was last written here, and its last line's digest: while
        # it stays so, another line needs nothing of those before.
        self._written: tuple[tuple[int, int], str] | None = None

    def read(self) -> list[Record]:
        """All complete lines.

        Raises:
          DamagedError: one is not as it was written.
        """
        return hosts.from_first(lambda: self._read()[0])

    def _read(self) -> tuple[list[Record], str]:
        """All complete lines and the last one's digest."""
        records, digest, sealed = [], "", False
        text = read_text(self.path) if self.path.exists() else ""
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                record, stored = parse_json(line)
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
        check_finite(record)
        before, self._written = self._written, None
        begins = not self.path.exists()
        unchanged = before is not None and not begins and before[0] == _stamp(self.path)
        digest = _next_digest(record, before[1] if unchanged else self._keep(lambda _: True))
        with open(self.path, "a") as file:
            file.write(_line(record, digest))
            file.flush()
            os.fsync(file.fileno())
        if begins:
            sync_folder(self.path.parent)
        self._written = _stamp(self.path), digest
        self.after()

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
        if self.path.exists() and text != read_text(self.path):
            write_text(self.path, text)
        return digest


def _stamp(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _line(record: Record, digest: str) -> str:
    return json.dumps({**record, DIGEST: digest}) + "\n"


def _next_digest(record: Record, before: str) -> str:
    return digest_of({key: value for key, value in record.items() if key != "seconds"}, before)
