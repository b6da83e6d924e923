"""Checkpoints of one training run: the latest state and the record that goes with it.

The only module that imports orbax.
"""

import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from furs_jax import hosts
from furs_jax.errors import WorkdirError

Record = dict[str, Any]

_LOGGERS = [logging.getLogger(name) for name in ("absl", "asyncio")]  # that Orbax reports through


class Checkpoints:
    """The latest checkpoint in a folder. Use as a context manager: leaving it waits for writes.

    On several hosts the first one saves, and reads for all: the state is the same everywhere.

    A checkpoint is written beside the previous one and renamed when complete, so that a kill at
    any instant leaves one of the two.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.absolute()
        self._manager = None
        if not hosts.is_first():
            return
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1,
            cleanup_tmp_directories=True,
            create=False,
            # Alone, even where there are others.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
            ),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        for logger in _LOGGERS:
            logger.addFilter(self._is_news)
        return self

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
        state = hosts.in_memory(state)
        content = {"record": record, "arrays": _describe(state)}
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
        """The JSON record of the latest checkpoint; None where there is none."""

        def read() -> Record | None:
            return None if self._manager.latest_step() is None else self._json()["record"]

        return hosts.from_first(read)

    def restore(self, abstract: Any) -> Any:
        """The latest state.

        Args:
          abstract: its tree of `jax.ShapeDtypeStruct`, as of `jax.eval_shape`.

        Raises:
          WorkdirError: a stored array has another shape or dtype than `abstract` says.
        """
        return hosts.arrays_from_first(lambda: self._restore(abstract), abstract)

    def _restore(self, abstract: Any) -> Any:
        step = self._manager.latest_step()
        stored, expected = self._json()["arrays"], _describe(abstract)
        if stored != expected:  # Orbax would cast another dtype silently
            differing = [f"{s} for {e}" for s, e in zip(stored, expected, strict=False) if s != e]
            raise WorkdirError(
                f"checkpoint {self.folder}/{step} is not of this network: it holds "
                f"{len(stored)} arrays for {len(expected)}; {', '.join(differing[:3])}"
            )
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract
        )
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return self._manager.restore(step, args=arguments).state

    def restore_variables(self, abstract: Any) -> Any:
        """The latest state's params and batch_stats, without what a training needs besides.

        Args:
          abstract: {"params", "batch_stats"} of `jax.ShapeDtypeStruct`.

        Raises:
          WorkdirError: they are of another network.
        """
        return hosts.arrays_from_first(lambda: self._restore_variables(abstract), abstract)

    def _restore_variables(self, abstract: Any) -> Any:
        step = self._manager.latest_step()
        stored = self._json()["arrays"]
        expected = [f".{name}{x}" for name, tree in abstract.items() for x in _describe(tree)]
        missing = [line for line in expected if line not in stored]
        if missing:
            raise WorkdirError(
                f"checkpoint {self.folder}/{step} is not of this network: it has no {missing[0]}"
            )
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract
        )
        restore = ocp.args.PyTreeRestore(
            target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=restore)).state

    def arrays(self) -> list[str]:
        """Name, dtype and shape of every array of the latest checkpoint."""
        return hosts.from_first(lambda: self._json()["arrays"])

    def _json(self) -> Record:
        arguments = ocp.args.Composite(json=ocp.args.JsonRestore())
        return self._manager.restore(self._manager.latest_step(), args=arguments).json


def _describe(state: Any) -> list[str]:
    """Name, dtype and shape of every array."""
    return [
        f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}"
        for path, x in jax.tree_util.tree_leaves_with_path(state)
    ]
