"""Ending a process on SIGTERM or SIGINT so that the same command goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from furs_jax.errors import StoppedError


class Stop:
    """Whether this process was asked to end.

    A signal raises StoppedError at once, as Python's own SIGINT does; within `held` it is only
    noted, for the holder to look at `asked` and to end where nothing is lost.
    """

    def __init__(self) -> None:
        self.signal = 0  # the last one, 0 for none
        self._held = False

    @property
    def asked(self) -> bool:
        return self.signal != 0

    def install(self) -> "Stop":
        """Handles the process's signals from now on; only a command line should."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        again = number == self.signal == signal.SIGINT  # Ctrl-C twice is in a hurry
        self.signal = number
        if again or not self._held:
            raise self.error("nothing but the work in progress is lost")

    @contextmanager
    def held(self) -> Iterator[None]:
        """While it lasts, signals wait."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.asked:  # too late for the holder
            raise self.error("all is saved")

    def error(self, state: str) -> StoppedError:
        """What to raise when stopping; `state` says what of the work is kept."""
        name = signal.Signals(self.signal).name if self.signal else "another process"
        return StoppedError(
            f"stopped by {name}; {state}, and the same command goes on",
            128 + (self.signal or signal.SIGTERM),
        )
