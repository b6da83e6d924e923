"""Keeps the page of a run that goes on, at a small share of its time and without harm to it."""

import pathlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from furs_jax.config_files import one_line
from furs_jax.machine import hosts
from furs_jax.report.page import PAGE, write_page
from furs_jax.report.run_record import read_run
from furs_jax.run.console import Console
from furs_jax.run.folder import Files
from furs_jax.run.text import printable

_LEAST = 5.0  # seconds between two pages that nothing asks for
_SHARE = 50  # times as long as a page takes is waited, too: 2 % of a run at most


class Watch:
    """Writes the page, and tells the console when the run will be done.

    What goes wrong is told in a line, once, and ends the watch and not the run.
    """

    def __init__(self, folder: pathlib.Path, console: Console):
        self.page = folder / PAGE
        self._folder, self._console = folder, console
        self._due, self._failed = 0.0, False

    @contextmanager
    def following(self, files: Files) -> Iterator[None]:
        """Looks whenever a journal has grown, and at the end, however that comes."""
        files.metrics.after = self.glance
        files.rounds.after = files.finals.after = self.look
        self.look()
        if not self._failed:
            self._console.print(f"how far it is tells {printable(str(self.page))}\n")
        try:
            yield
        finally:
            self.look(runs=False)

    def look(self, runs: bool = True) -> None:
        """Writes the page as the run's files are now; `runs`: whether it goes on."""
        if self._failed or not hosts.is_first():
            return
        begun = time.monotonic()
        try:
            with hosts.alone():
                run = read_run(self._folder)
                write_page(run, self.page, runs)
            self._console.expect(run.forecast.seconds if runs else None)
        except Exception as error:  # whatever it is, the run is worth more
            self._failed = True
            place = printable(str(self.page))
            self._console.print(f"note: {place} is not kept any more: {one_line(error)}")
        took = time.monotonic() - begun
        self._due = begun + took + max(_LEAST, _SHARE * took)

    def glance(self) -> None:
        """As `look`, when it is time."""
        if time.monotonic() >= self._due:
            self.look()
