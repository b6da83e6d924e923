"""Compiled programs: how long they took, and letting go of them."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import jax

from furs_jax.machine import hosts

_COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)


def release_programs() -> None:
    """Forgets everything that was traced and compiled; the cache on disk keeps what took long.

    Every network is compiled anew, and JAX never lets go of the last one: a process of many
    networks would grow, and on CPU run out of the memory mappings that Linux allows it.
    """
    gc.collect()  # cycles through a round's functions
    jax.clear_caches()
    with suppress(AttributeError, OSError):  # a function of glibc
        ctypes.CDLL(None).malloc_trim(0)  # compilations free much that would stay with the process


class CompileClock:
    """Seconds that JAX has spent tracing and compiling.

    Attributes:
      hidden: those of threads beside the one that made the clock, which did not wait for them.
    """

    def __init__(self) -> None:
        self._before, self.hidden = 0.0, 0.0
        self._spans: list[tuple[float, float]] = []  # since `seconds` was read, apart and in order
        self._beside: list[tuple[float, float]] = []  # of the thread beside, likewise
        self._own = threading.get_ident()

    @property
    def seconds(self) -> float:
        """Waited for. Read it while nothing is traced, which might enclose what is summed up."""
        self._before += _taken(self._spans)
        return self._before

    def span(self) -> "Span":
        """What is spent from now on."""
        return Span(self)

    def __call__(self, event: str, start: float, end: float, **_: object) -> None:
        if event in _COMPILE_EVENTS:
            own = threading.get_ident() == self._own
            _add(self._spans if own else self._beside, start, end)

    @contextmanager
    def ahead(
        self,
        *compilations: Callable[[], object],
        waiting: AbstractContextManager | None = None,
    ) -> Iterator[None]:
        """Compiles in a thread while the context lasts, and waits for it at the end.

        A compilation that fails is left for whoever calls the program, who will meet the error.
        With several hosts nothing is compiled ahead: they compile in one order, since some
        compilations wait for those of the others.

        Args:
          compilations: what to do, in order.
          waiting: a context for the wait at the end, where there is one.
        """

        def work() -> None:
            for compilation in compilations if hosts.count() == 1 else ():
                with suppress(Exception):
                    compilation()

        thread = threading.Thread(target=work, name="compile", daemon=True)
        thread.start()
        yield  # what ends by an exception does not wait
        waited = time.monotonic()
        if thread.is_alive():
            with waiting or nullcontext():
                thread.join()
        waited = time.monotonic() - waited
        self._before += waited
        self.hidden += max(_taken(self._beside) - waited, 0.0)


class Span:
    """Seconds since it was made, until they are read."""

    def __init__(self, clock: CompileClock):
        self._clock, self._begun = clock, time.monotonic()
        self._compiled, self._hidden = clock.seconds, clock.hidden

    @property
    def compiled(self) -> float:
        """Of compiling, as `CompileClock.seconds`."""
        return self._clock.seconds - self._compiled

    @property
    def hidden(self) -> float:
        """Likewise, as `CompileClock.hidden`."""
        return self._clock.hidden - self._hidden

    @property
    def worked(self) -> float:
        """Of anything else."""
        return time.monotonic() - self._begun - self.compiled


def _add(spans: list[tuple[float, float]], start: float, end: float) -> None:
    # Functions traced within another are reported first, and lie within its time.
    while spans and spans[-1][1] > start:
        start = min(start, spans.pop()[0])
    spans.append((start, end))


def _taken(spans: list[tuple[float, float]]) -> float:
    total = sum(end - start for start, end in spans)
    spans.clear()
    return total


@contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """Counts compile time while the context lasts."""
    clock = CompileClock()
    jax.monitoring.register_event_time_span_listener(clock)
    try:
        yield clock
    finally:
        jax.monitoring.unregister_event_time_span_listener(clock)
