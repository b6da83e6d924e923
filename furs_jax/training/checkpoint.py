"""Checkpoints of one training run: its last states and the records that go with them.

The only module that imports orbax.
"""

import contextlib
import inspect
import json
import logging
import os
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from furs_jax.errors import DamagedError, FursError, WorkdirError
from furs_jax.machine import hosts
from furs_jax.machine.sealed import seal, unseal

Record = dict[str, Any]
T = TypeVar("T")

KEPT = 2  # checkpoints: one that can be read where the latest is damaged

_STORES = ("tensorstore", "OCDBT")  # one of which an error of reading arrays names
_LOGGERS = [logging.getLogger(name) for name in ("absl", "asyncio")]  # that Orbax reports through


class Checkpoints:
    """The checkpoints in a folder. Use as a context manager: leaving it waits for writes.

    On several hosts the first one saves, and reads for all: the state is the same everywhere.

    A checkpoint is written beside the previous ones and renamed when complete, so that a kill at
    any instant leaves those. It holds digests of its arrays and its record, and what is read is
    checked against them.
    """

    def __init__(self, folder: pathlib.Path, read_only: bool = False):
        """
        Args:
          folder: made where there is none.
          read_only: nothing in the folder changes, which another process may be writing to; one
            that isn't there holds no checkpoint.
        """
        self.folder = folder.absolute()
        self._read_only = read_only
        self._manager = None

    def __enter__(self) -> "Checkpoints":
        for logger in _LOGGERS:
            logger.addFilter(self._is_news)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        if not hosts.is_first() or (self._read_only and not self.folder.is_dir()):
            return
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if self._read_only else KEPT,
            cleanup_tmp_directories=not self._read_only,
            read_only=self._read_only,
            create=False,
            # Alone, even where there are others.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
            ),
        )
        with self._writing():
            if not self._read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __exit__(self, *_: Any) -> None:
        try:
            if self._manager:
                with self._writing():
                    self._manager.close()
        finally:
            for logger in _LOGGERS:
                logger.removeFilter(self._is_news)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Not Orbax's reports of every save, and of all arrays of one whose error is raised."""
        orbax = os.path.join("", "orbax", "")
        return orbax not in record.pathname and orbax not in record.getMessage()

    def save(self, step: int, state: Any, record: Record) -> None:
        """Starts to save the state and a JSON record after `step` steps, later than the last.

        Raises:
          WorkdirError: this or, being written meanwhile, the last one can't be written. On leaving
            the context, too.
        """
        if not self._manager:
            return
        state = jax.tree.map(np.asarray, state)
        digests = [_digest(x) for x in jax.tree.leaves(state)]
        content = seal({"record": record, "arrays": _describe(state), "digests": digests})
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), json=ocp.args.JsonSave(content)
        )
        with self._writing():
            self._manager.save(step, args=arguments)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes one error of what a full disk, say, makes Orbax and tensorstore raise."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().split(": ")[-1]
            raise WorkdirError(
                f"a checkpoint in {self.folder} can't be written: {reason}. Make it possible; the "
                "same command goes on from the one before"
            ) from error

    def record(self) -> Record | None:
        """The JSON record of the latest checkpoint; None where there is none.

        Raises:
          DamagedError: the checkpoint is damaged. Of the other functions, too.
        """

        def read() -> Record | None:
            if latest_step(self.folder) is None:
                return None
            return self._of_latest(lambda step: self._json(step)["record"])

        return hosts.from_first(read)

    def restore(self, abstract: Any) -> Any:
        """The latest state.

        Args:
          abstract: its tree of `jax.ShapeDtypeStruct`, as of `jax.eval_shape`.

        Raises:
          WorkdirError: a stored array has another shape or dtype than `abstract` says.
        """

        def read(step: int) -> Any:
            content, expected = self._json(step), _describe(abstract)
            stored = content["arrays"]
            if stored != expected:  # Orbax would cast another dtype silently
                pairs = zip(stored, expected, strict=False)
                differing = [f"{s} for {e}" for s, e in pairs if s != e]
                raise WorkdirError(
                    f"checkpoint {self.folder}/{step} is not of this network: it holds "
                    f"{len(stored)} arrays for {len(expected)}; {', '.join(differing[:3])}"
                )
            state = self._state(step, ocp.args.StandardRestore(_on_device(abstract)))
            _check_digests(content, expected, state)
            return state

        return hosts.arrays_from_first(lambda: self._of_latest(read), abstract)

    def restore_variables(self, abstract: Any) -> Any:
        """The latest state's params and batch_stats, without what a training needs besides.

        Args:
          abstract: {"params", "batch_stats"} of `jax.ShapeDtypeStruct`.

        Raises:
          WorkdirError: they are of another network.
        """

        def read(step: int) -> Any:
            content = self._json(step)
            expected = [
                line
                for name in sorted(abstract)  # as in the tree
                for line in _describe(abstract[name], f".{name}")
            ]
            missing = [line for line in expected if line not in content["arrays"]]
            if missing:
                raise WorkdirError(
                    f"checkpoint {self.folder}/{step} is not of this network: it has no "
                    f"{missing[0]}"
                )
            target = _on_device(abstract)
            restore = ocp.args.PyTreeRestore(
                target,
                restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                partial_restore=True,
            )
            variables = self._state(step, restore)
            _check_digests(content, expected, variables)
            return variables

        return hosts.arrays_from_first(lambda: self._of_latest(read), abstract)

    def arrays(self) -> list[str]:
        """Name, dtype and shape of every array of the latest checkpoint."""
        return hosts.from_first(lambda: self._of_latest(lambda step: self._json(step)["arrays"]))

    def _of_latest(self, read: Callable[[int], T]) -> T:
        """What `read` finds in the checkpoint of the latest step."""
        step = latest_step(self.folder)
        while True:
            try:
                return read(step)
            except FursError:
                raise
            except Exception as error:  # what damage makes of Orbax, tensorstore, zarr and others
                newest = latest_step(self.folder)
                if newest in (None, step):
                    raise self._damaged(step, error) from error
                step = newest  # a process that saves has removed the other

    def _damaged(self, step: int, error: Exception) -> DamagedError:
        before = [other for other in _steps(self.folder) if other < step]
        way_on = (
            f"the one before it, of step {before[-1]}, is taken"
            if before
            else "its training begins anew, as there is none before it"
        )
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return DamagedError(
            f"checkpoint {self.folder}/{step} is damaged: {lines[0][:200]}. Delete this folder: "
            f"then {way_on}"
        )

    def _json(self, step: int) -> Record:
        arguments = ocp.args.Composite(json=ocp.args.JsonRestore())
        return unseal(json.dumps(self._manager.restore(step, args=arguments).json))

    def _state(self, step: int, arguments: Any) -> Any:
        with _late_reads_ignored():
            return self._manager.restore(step, args=ocp.args.Composite(state=arguments)).state


class _LateReads:
    """A `sys.unraisablehook` that leaves out what reads print that end after another's error."""

    def __init__(self, printed: Callable[[Any], None]):
        self._printed = printed

    def __call__(self, unraisable: Any) -> None:
        late = "Event loop is closed" in str(unraisable.exc_value)
        if not late and not inspect.iscoroutine(unraisable.object):  # of Orbax; we have none
            self._printed(unraisable)


@contextlib.contextmanager
def _late_reads_ignored() -> Iterator[None]:
    """After an error from then on: such reads are still to come."""
    before, asyncio = sys.unraisablehook, logging.getLogger("asyncio")
    if not isinstance(before, _LateReads):
        sys.unraisablehook = _LateReads(before)
    asyncio.addFilter(_is_no_late_read)
    yield
    asyncio.removeFilter(_is_no_late_read)
    sys.unraisablehook = before


def _is_no_late_read(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    of_arrays = any(name in message for name in _STORES)
    return "never retrieved" not in message or not of_arrays


def latest_step(folder: pathlib.Path) -> int | None:
    """The step of the latest checkpoint in a folder; None where there is none."""
    return max(_steps(folder), default=None)


def _steps(folder: pathlib.Path) -> list[int]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in paths if path.name.isdecimal() and path.is_dir())


def _on_device(abstract: Any) -> Any:
    """Where to restore to."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract)


def _describe(state: Any, prefix: str = "") -> list[str]:
    """Name, dtype and shape of every array."""
    return [
        f"{prefix}{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}"
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    ]


def _digest(array: Any) -> str:
    """Of the bytes of a jax or numpy array; 0.15 ms a MB."""
    return f"{zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8)):08x}"


def _check_digests(content: Record, lines: Sequence[str], tree: Any) -> None:
    """Compares restored arrays, which `lines` describe, with what was saved."""
    if "digests" not in content:
        return  # saved by a version before them
    saved = dict(zip(content["arrays"], content["digests"], strict=True))
    for line, array in zip(lines, jax.tree.leaves(tree), strict=True):
        if saved[line] != _digest(array):
            raise ValueError(f"{line} is not as it was saved")
