"""Checkpoints of one training run: the latest state and the record that goes with it.

The only module that imports orbax.
"""

import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from furs_jax.errors import WorkdirError

Record = dict[str, Any]


class Checkpoints:
    """The latest checkpoint in a folder. Use as a context manager: leaving it waits for writes.

    A checkpoint is written beside the previous one and renamed when complete, so that a kill at
    any instant leaves one of the two.
    """

    def __init__(self, folder: pathlib.Path):
        # Orbax reports every save at this level.
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
        self.folder = folder.absolute()
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self._manager.close()

    def save(self, epoch: int, state: Any, record: Record) -> None:
        """Starts to save the state and a JSON record after `epoch` epochs."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
        )
        self._manager.save(epoch, args=arguments)

    def record(self) -> Record | None:
        """The JSON record of the latest checkpoint; None where there is none."""
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        arguments = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(epoch, args=arguments).record

    def restore(self, abstract: Any) -> Any:
        """The latest state.

        Args:
          abstract: its tree of `jax.ShapeDtypeStruct`, as of `jax.eval_shape`.

        Raises:
          WorkdirError: a stored array has another shape or dtype than `abstract` says.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), abstract
        )
        epoch = self._manager.latest_step()
        self._check_dtypes(epoch, abstract)
        try:
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            return self._manager.restore(epoch, args=arguments).state
        except ValueError as error:
            raise WorkdirError(
                f"checkpoint {self.folder}/{epoch} doesn't fit this network: {error}"
            ) from error

    def _check_dtypes(self, epoch: int, abstract: Any) -> None:
        # Orbax casts silently.
        stored = jax.tree.leaves(self._manager.item_metadata(epoch).state)
        expected = jax.tree.leaves(abstract)
        wrong = [(s.dtype, e.dtype) for s, e in zip(stored, expected) if s.dtype != e.dtype]
        if len(stored) != len(expected) or wrong:
            raise WorkdirError(
                f"checkpoint {self.folder}/{epoch} holds another network's state: "
                f"{len(stored)} arrays, not {len(expected)}; dtypes (stored, expected) {wrong[:3]}"
            )
