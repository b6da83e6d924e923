"""Ending a process on SIGTERM or SIGINT so that the same command goes on."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from furs_jax.errors import StoppedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds
_TICK = 0.1  # between looks at the main thread
_GRACE = 1.0  # for Python to call the handler; it does so between any two bytecodes
_PATIENCE = 5.0  # for the main thread to end, once StoppedError was raised
_UNSAVED = "nothing but the work in progress is lost"


class Stop:
    """Whether this process was asked to end.

    A signal raises StoppedError at once, as Python's own SIGINT does; within `held` it is only
    noted, for the holder to look at `asked` and to end where nothing is lost.

    That alone would not end every process: destructors, callbacks of the garbage collector and
    others' `except:` lose an exception, and nothing is raised while the main thread is in C++, as
    in a compilation of a minute. So where signals are handled (`install`), a thread watches: it
    raises again what was lost, and ends the process in place of a main thread that doesn't answer.
    """

    def __init__(self) -> None:
        self.signal = 0  # the last one, 0 for none
        self._held = False
        self._answered = False  # the handler was called since a signal was sent
        self._lost = False  # Python has reported that it dropped the exception
        self._left = False  # the main thread has ended its work
        self._status = 0  # to end with

    @property
    def asked(self) -> bool:
        return self.signal != 0

    def install(self) -> "Stop":
        """Handles the process's signals from now on; only a command line should."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # works within C++, too
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        report = sys.unraisablehook

        def unraisable(dropped: Any) -> None:
            if isinstance(dropped.exc_value, StoppedError):
                self._lost = True
            else:
                report(dropped)

        sys.unraisablehook = unraisable
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        atexit.register(self._leave)  # before JAX's, which so come first
        threading.Thread(target=self._watch, args=(reading,), name="stop", daemon=True).start()
        return self

    def __enter__(self) -> "Stop":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *_: Any) -> None:
        """What is left to do takes care of itself, so that a later signal ends it at once."""
        self._left = True
        if isinstance(error, Exception):
            self._status = getattr(error, "status", 1)

    def _leave(self) -> None:
        """The last thing at exit, after an error is told.

        Python's own end waits for an interrupted compilation, and dies of one in another thread.
        """
        if self._status:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(self._status)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._left:
            self._end(number)
        again = number == self.signal == signal.SIGINT  # Ctrl-C twice is in a hurry
        self.signal = number
        self._answered = True
        if again or not self._held:
            raise self.error(_UNSAVED)

    def _watch(self, wakeups: int) -> None:
        """Runs in a thread; `wakeups` gets the number of every signal."""
        number = 0
        while number not in _SIGNALS:
            number = os.read(wakeups, 1)[0]
        since = time.monotonic()
        while not (self._left and self._answered):
            time.sleep(_TICK)
            waited = time.monotonic() - since
            if self._held:
                since = time.monotonic()
            elif not self._answered:
                if waited > _GRACE:
                    self._end(number)
            elif not self._left and (self._lost or waited > _PATIENCE):
                self._answered = self._lost = False
                since = time.monotonic()
                signal.pthread_kill(threading.main_thread().ident, number)

    def _end(self, number: int) -> None:
        """Ends the process from any thread. A run survives that at any instant."""
        self.signal = number
        error = self.error(_UNSAVED)
        # The main thread may hold the stream's lock.
        flush = threading.Thread(target=sys.stdout.flush, daemon=True)
        with suppress(RuntimeError):  # Python is ending and starts no thread
            flush.start()
            flush.join(_GRACE)
        line = "\n" if sys.stderr.isatty() else ""  # below a progress bar
        os.write(2, f"{line}furs_jax: {error}\n".encode())
        os._exit(error.status)

    @contextmanager
    def held(self, at_once: bool = True) -> Iterator[Callable[[], None]]:
        """While it lasts, signals wait.

        Args:
          at_once: otherwise they don't wait before the function that is yielded was called, since
            there is nothing to lose yet.
        """
        if at_once:
            self._hold()
        try:
            yield self._hold
        finally:
            self._held = False
        if self.asked:  # too late for the holder
            raise self.error("all is saved")

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            if self.asked:  # and the exception was lost
                self._held = False
                raise self.error(_UNSAVED)

    def error(self, state: str) -> StoppedError:
        """What to raise when stopping; `state` says what of the work is kept."""
        name = signal.Signals(self.signal).name if self.signal else "another process"
        return StoppedError(
            f"stopped by {name}; {state}, and the same command goes on",
            128 + (self.signal or signal.SIGTERM),
        )
