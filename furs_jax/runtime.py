"""Setting JAX up: devices, precision, the compilation cache, and a clock of compile time."""

import logging
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from furs_jax.errors import ConfigError

_COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
DTYPES = ("auto", "float32", "bfloat16")


def set_up(cpu_devices: int = 0) -> tuple[jax.Device, ...]:
    """Prepares JAX and returns the devices to compute on. Call it before any computation.

    Args:
      cpu_devices: JAX devices to make on a CPU; 0 for one for each core that this process may
        use, which trains a ResNet-20 1.2 to 1.4 times as fast as one device on two cores.

    Raises:
      ConfigError: the number is negative, or JAX has started with another number.
    """
    if cpu_devices < 0:
        raise ConfigError(f"cpu_devices={cpu_devices} must be 0 (one for each core) or more")
    # Programs change with the channels every round, but not between runs.
    default_cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(default_cache / "furs_jax" / "xla"))
    # Reports of cache entries that can't be written or read are not the user's concern.
    logging.getLogger("jax._src.compiler").setLevel(logging.ERROR)
    if "XLA_FLAGS" not in os.environ or "device_count" not in os.environ["XLA_FLAGS"]:
        try:
            jax.config.update("jax_num_cpu_devices", cpu_devices or len(os.sched_getaffinity(0)))
        except RuntimeError as error:
            if cpu_devices and jax.default_backend() == "cpu":
                if cpu_devices != jax.device_count():
                    raise ConfigError(
                        f"cpu_devices={cpu_devices}, but JAX runs with {jax.device_count()} already"
                    ) from error
    return tuple(jax.devices())


def resolve_dtype(name: str) -> str:
    """The dtype of the computation: "auto" is bfloat16 on TPU and GPU, float32 on CPU.

    Raises:
      ConfigError: unknown name.
    """
    if name not in DTYPES:
        raise ConfigError(f"dtype={name!r} must be one of {', '.join(DTYPES)}")
    if name != "auto":
        return name
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


class CompileClock:
    """Seconds that JAX has spent tracing and compiling."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self._spans)

    def __call__(self, event: str, start: float, end: float, **_: object) -> None:
        if event in _COMPILE_EVENTS:
            # Functions traced within another are reported first, and lie within its time.
            outside = [span for span in self._spans if span[1] <= start]
            self._spans = [*outside, (start, end)]


@contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """Counts compile time while the context lasts."""
    clock = CompileClock()
    jax.monitoring.register_event_time_span_listener(clock)
    try:
        yield clock
    finally:
        jax.monitoring.unregister_event_time_span_listener(clock)
