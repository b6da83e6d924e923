"""Compiled programs: how long they took, and letting go of them."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import jax

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
    """Seconds that JAX has spent tracing and compiling."""

    def __init__(self) -> None:
        self._before = 0.0
        self._spans: list[tuple[float, float]] = []  # since `seconds` was read, apart and in order

    @property
    def seconds(self) -> float:
        """To be read while nothing is being traced, which might enclose what is summed up here."""
        self._before += sum(end - start for start, end in self._spans)
        self._spans.clear()
        return self._before

    def __call__(self, event: str, start: float, end: float, **_: object) -> None:
        if event in _COMPILE_EVENTS:
            # Functions traced within another are reported first, and lie within its time.
            while self._spans and self._spans[-1][1] > start:
                start = min(start, self._spans.pop()[0])
            self._spans.append((start, end))


@contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """Counts compile time while the context lasts."""
    clock = CompileClock()
    jax.monitoring.register_event_time_span_listener(clock)
    try:
        yield clock
    finally:
        jax.monitoring.unregister_event_time_span_listener(clock)
