"""Where a run prints: lines, and a bar over each training that says when all will be done."""

import datetime
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from furs_jax.run.forecast import clock
from furs_jax.run.text import wrapped

Record = dict[str, Any]

WIDTH = 100  # columns that lines fit in
_WAIT = "{desc}, {elapsed}"
_STEPS = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
_BETWEEN_LINES = 60.0  # seconds at least between the lines of epochs, where there is no bar


class Console:
    """Prints to standard output; progress bars go to standard error where that is a terminal."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self._end: datetime.datetime | None = None
        self._told = time.monotonic()

    def print(self, text: str) -> None:
        if not self.quiet:
            tqdm.write(wrapped(text, WIDTH))
            sys.stdout.flush()

    def final(self, title: str, scores: dict[str, float]) -> None:
        self.print(
            f"{title}  top-1 {100 * scores['top1']:.2f}%  top-5 {100 * scores['top5']:.2f}%  "
            "(test split)"
        )

    def expect(self, seconds: float | None) -> None:
        """Notes how long the whole run will still take; None where that isn't known."""
        now = datetime.datetime.now().astimezone()
        self._end = None if seconds is None else now + datetime.timedelta(seconds=seconds)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what is waited for, and since when."""
        with self._bar(what, bar_format=_WAIT) as bar, _ticking(bar):
            yield

    @contextmanager
    def progress(self, title: str, steps: int, epochs: int) -> Iterator["Progress"]:
        """Shows one training's steps."""
        # What is before the first step is waited for a program, in which no step can be seen.
        with (
            self._bar(f"{title}, compiling", total=steps, bar_format=_WAIT) as bar,
            _ticking(bar) as still,
        ):
            yield Progress(self, bar, title, epochs, still)

    def _bar(self, title: str, **options: Any) -> tqdm:
        # disable=None: not where standard error is a file.
        hide = True if self.quiet else None
        width = min(shutil.get_terminal_size().columns - 1, WIDTH)
        return tqdm(desc=title, leave=False, disable=hide, ncols=width, **options)

    def ahead(self) -> str:
        """When the whole run will be done, as far as it is known."""
        if self._end is None:
            return ""
        return f", all done ~{clock(self._end, datetime.datetime.now().astimezone())}"

    def line(self, text: str) -> None:
        """A line in place of a bar, where there is none: not more than one in a minute."""
        now = time.monotonic()
        if now - self._told >= _BETWEEN_LINES:
            self._told = now
            self.print(text)


class Progress:
    """One training's steps and epochs."""

    def __init__(
        self, console: Console, bar: tqdm, title: str, epochs: int, still: Callable[[], None]
    ):
        self._console, self._bar, self._title, self._epochs = console, bar, title, epochs
        self._still, self._record = still, {}
        self._begun = self._moves = False

    def step(self, step: int) -> None:
        """So many are done; the first call says with how many the training begins."""
        if not self._begun:
            self._begun = True
            self._bar.n = self._bar.initial = step
            return
        if not self._moves:  # compiled: the time until now tells no speed
            self._moves = True
            self._still()
            self._bar.bar_format = _STEPS
            self._bar.unpause()
            self._describe()
        self._bar.update(step - self._bar.n)

    def epoch(self, record: Record) -> None:
        """An epoch has ended, with what metrics.jsonl holds of it."""
        self._record = record
        self._describe()
        if self._bar.disable:
            self._console.line(self._text() + self._console.ahead())

    def _describe(self) -> None:
        self._bar.set_description_str(self._text() + self._console.ahead(), refresh=False)

    def _text(self) -> str:
        done = self._record.get("epoch", 0)
        loss = f", loss {self._record['loss']:.3f}" if "loss" in self._record else ""
        return f"{self._title}, epoch {min(done + 1, self._epochs)}/{self._epochs}{loss}"


@contextmanager
def _ticking(bar: tqdm) -> Iterator[Callable[[], None]]:
    """Shows a bar's time every second until the function is called, which waits for it."""
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(1.0):
            bar.refresh()

    thread = threading.Thread(target=tick, name="console", daemon=True)
    if not bar.disable:
        thread.start()

    def still() -> None:
        stop.set()
        if thread.is_alive():
            thread.join()

    try:
        yield still
    finally:
        still()
