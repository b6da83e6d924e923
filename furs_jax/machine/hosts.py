"""Several processes, one run: joining them, and what they tell each other.

Process 0 alone reads and writes the run's folder; the others get what it read. Every function
here must be called by all processes in the same order. With one process they do nothing.
"""

import builtins
import contextlib
import functools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from furs_jax import errors
from furs_jax.errors import ConfigError, HostsError

T = TypeVar("T")
Tree = TypeVar("Tree")

_alone = False


def join(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    heartbeat_seconds: int = 60,
) -> bool:
    """Joins the other processes of the run; False where there are none.

    Call it before any computation. Without arguments, the environment tells: JAX_NUM_PROCESSES,
    JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS, Slurm's variables, or the metadata of Cloud TPUs.

    Args:
      coordinator: host:port of process 0, port free there.
      num_processes, process_id: how many there are, and which this one is.
      heartbeat_seconds: when a process was silent for so long, JAX aborts the others.

    Raises:
      ConfigError: only some arguments are given, or they can't be used.
      HostsError: the others can't be reached.
    """
    if (coordinator, num_processes, process_id) == (None, None, None):
        coordinator, num_processes, process_id = _of_environment()
    given = (coordinator, num_processes, process_id)
    if given != (None, None, None):
        if None in given:
            raise ConfigError("give --coordinator, --num_processes and --process_id together")
        if ":" not in coordinator or not 0 <= process_id < num_processes:
            raise ConfigError(
                f"--coordinator={coordinator} must be host:port, and --process_id={process_id} "
                f"below --num_processes={num_processes}"
            )
        arguments = {"cluster_detection_method": "deactivate"}
    elif _in_slurm() or _on_tpu():
        arguments = {}
    else:
        return False
    # JAX would take SIGTERM for itself; `furs_jax.machine.stop` handles it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
            **arguments,
        )
    except (OSError, ValueError):
        if arguments or _in_slurm():
            raise
        return False  # a TPU without metadata
    except RuntimeError as error:
        raise HostsError(f"the other processes can't be reached: {error}") from error
    return True


def _of_environment() -> tuple[str | None, int | None, int | None]:
    if "JAX_NUM_PROCESSES" not in os.environ:
        return None, None, None
    try:
        numbers = [int(os.environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
    except (KeyError, ValueError) as error:
        raise ConfigError("JAX_NUM_PROCESSES and JAX_PROCESS_ID must be numbers") from error
    return os.environ.get("JAX_COORDINATOR_ADDRESS"), *numbers


def _in_slurm() -> bool:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def _on_tpu() -> bool:
    # JAX sets it, when imported, on a machine without TPU chips.
    return "TPU_SKIP_MDS_QUERY" not in os.environ


def count() -> int:
    """Number of processes. Does not start JAX's devices where there is one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    return index() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While it lasts, `from_first` only calls `make`: for what one process does and no other."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in process 0, which alone calls it: something that JSON can hold.

    Whatever is raised in process 0 is told to the others, which would wait for ever.

    Raises:
      FursError, OSError: in all processes, where it does so in process 0.
      HostsError: in the others, where it raises anything else there.
    """
    if _alone or count() == 1:
        return make()
    raised, text = None, "null"
    if is_first():
        try:
            text = json.dumps({"value": make()})
        except BaseException as error:  # an interrupt, too
            raised = error
            text = json.dumps({"error": type(error).__name__, "message": str(error)})
    content = json.loads(_broadcast(text))
    if raised is not None:
        raise raised
    if "error" in content:
        raise _as_raised(content["error"], content["message"])
    return content["value"]


def _broadcast(text: str) -> bytes:
    """Process 0's text, in all processes."""
    array = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(array))))
    padded = array if is_first() else np.zeros(size, np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes()


def _as_raised(name: str, message: str) -> Exception:
    """What process 0 has raised, by the name of its class."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, (errors.FursError, OSError)):
        error = kind.__new__(kind, message)  # constructors take what makes up the message
        error.args = (message,)
        return error
    return HostsError(f"process 0 failed by {name}: {message}" if message else f"process 0: {name}")


def arrays_from_first(make: Callable[[], Tree], abstract: Tree) -> Tree:
    """As `from_first`, of a tree of arrays whose shapes and dtypes are known to all."""
    if count() == 1:
        return make()
    tree = None

    def try_to_make() -> None:
        nonlocal tree
        tree = make()

    from_first(try_to_make)
    if not is_first():
        tree = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    return multihost_utils.broadcast_one_to_all(tree)


def total(number: int) -> int:
    """The sum over all processes."""
    if count() == 1:
        return number
    return int(np.sum(multihost_utils.process_allgather(np.int32(number))))


def most_urgent(devices: Sequence[jax.Device]) -> Callable[[int], Any]:
    """A function of a number that gives the largest of all processes', as an array in the making.

    It is queued after the work that the devices have, and doesn't wait for it.
    """
    if count() == 1:
        return lambda number: number
    largest = _largest(tuple(devices))
    local = len(devices) // count()
    return lambda number: largest(np.full(local, number, np.int32))


@functools.lru_cache(maxsize=1)
def _largest(devices: tuple[jax.Device, ...]) -> Callable:
    return jax.pmap(
        lambda number: jax.lax.pmax(number, "hosts"),
        axis_name="hosts",
        out_axes=None,
        devices=devices,
    )


def gathered(part: np.ndarray) -> np.ndarray:
    """The parts of all processes, concatenated along the leading axis."""
    return part if count() == 1 else multihost_utils.process_allgather(part, tiled=True)


def agree(what: str, value: Any) -> None:
    """Checks that all processes hold the same.

    Args:
      what: how to call it.
      value: something that JSON can hold.

    Raises:
      HostsError: in all processes, where one differs from process 0.
    """
    if count() == 1:
        return
    digest = np.uint32(zlib.crc32(json.dumps(value, sort_keys=True).encode()))
    digests = multihost_utils.process_allgather(digest)
    differing = [str(i) for i, found in enumerate(digests) if found != digests[0]]
    if differing:
        raise HostsError(
            f"{what} of process {', '.join(differing)} is not that of process 0; start all with "
            "the same command, code, versions and data"
        )
