"""Setting JAX up: devices, precision, the compilation cache, and a clock of compile time."""

import os
from collections.abc import Sequence
from contextlib import suppress

import jax

from furs_jax.errors import ConfigError
from furs_jax.machine.cores import usable_cores
from furs_jax.machine.program_cache import cache_folder, remove_damaged
from furs_jax.options.schema import check_option


def set_up(cpu_devices: int = 0, batch_sizes: Sequence[int] = ()) -> tuple[jax.Device, ...]:
    """Prepares JAX and returns the devices to compute on, of all hosts.

    Call it before any computation.

    Args:
      cpu_devices: JAX devices to make on a CPU, in each process; 0 to choose by `best_cpu_devices`.
      batch_sizes: all that will be split over the devices, for that choice.

    Raises:
      ConfigError: the number is negative, or JAX has started with another number.
    """
    check_option("cpu_devices", cpu_devices)
    # Programs change with the channels every round, but not between runs.
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    remove_damaged(jax.config.jax_compilation_cache_dir)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Too late where JAX has started; then its devices stay.
        with suppress(RuntimeError):
            count = cpu_devices
            if not count:  # with other processes: one for each
                alone, cores = not jax.distributed.is_initialized(), usable_cores()
                count = best_cpu_devices(cores, batch_sizes) if alone else 1
            jax.config.update("jax_num_cpu_devices", count)
    devices, local = tuple(jax.devices()), jax.local_device_count()
    if cpu_devices not in (0, local) and jax.default_backend() == "cpu":
        raise ConfigError(
            f"cpu_devices={cpu_devices}, but this process has {local} CPU devices already; "
            "start a new one, or leave the option at 0"
        )
    return devices


def best_cpu_devices(cores: int, batch_sizes: Sequence[int]) -> int:
    """The most devices, up to one for each core, that split every batch into equal parts.

    Parts have at least 8 images. Measured on two cores, two devices against one: a ResNet-20
    (batch 128) trained 1.3 times as fast, a ResNet-14 of 8 to 32 channels on 28x28 images equally
    fast. A step of few MACs is faster on one device, so configs/digits.py asks for one. More than
    two cores: not measured.
    """
    counts = [
        count
        for count in range(1, cores + 1)
        if all(size % count == 0 and size >= 8 * count for size in batch_sizes)
    ]
    return max(counts, default=1)


def resolve_dtype(name: str) -> str:
    """The dtype of the computation: "auto" is bfloat16 on TPU and GPU, float32 on CPU.

    Raises:
      ConfigError: unknown name.
    """
    check_option("dtype", name)
    if name != "auto":
        return name
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
