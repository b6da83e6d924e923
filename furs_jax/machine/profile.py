"""A trace of some training steps, for TensorBoard or Perfetto."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

_SKIPPED, _TRACED = 10, 10  # steps: the first ones compile and fill the queue


@contextmanager
def traced(folder: str | None, on_step: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """Yields an `on_step` that also traces ten steps into `folder`, where one is given.

    Steps are queued ahead of the device, so that the trace may begin with a few earlier ones.
    """
    if folder is None:
        yield on_step
        return
    seen, running = 0, False

    def step_and_trace(step: int) -> None:
        nonlocal seen, running
        on_step(step)
        seen += 1
        if seen == _SKIPPED:
            jax.profiler.start_trace(folder)
            running = True
        elif running and seen == _SKIPPED + _TRACED:
            jax.profiler.stop_trace()
            running = False

    try:
        yield step_and_trace
    finally:
        if running:
            jax.profiler.stop_trace()
