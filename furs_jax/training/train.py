"""One network, from its initial weights to trained ones; resumable."""

import collections
import contextlib
import enum
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from furs_jax.data.batches import Batch, Seed, training_batches
from furs_jax.errors import DivergedError, WorkdirError
from furs_jax.machine import hosts
from furs_jax.machine.stop import Stop
from furs_jax.objectives import Variables
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.loading import module_record
from furs_jax.training.step import TrainState, replicated, shard
from furs_jax.training.trainer import Trainer

Record = dict[str, Any]

# Steps whose metrics may be outstanding: enough to keep a device busy, few enough that a NaN is
# noticed at once and that queued batches take little memory.
_IN_FLIGHT = 8
_WAY_ON = "lower the learning rate or lengthen the warmup"
_WIDTHS = ("channels", "vectors")  # of a checkpoint's record
_WITHIN_EPOCH = 60.0  # seconds between saves within an epoch, or checkpoint_seconds where longer


class Pause(enum.IntEnum):
    """What training is interrupted for."""

    NONE = 0
    SAVE = 1
    STOP = 2


class _Saver:
    """Saves, where there is a folder to save in, and knows when it is time."""

    def __init__(self, checkpoints: Checkpoints | None, seconds: float, stop: Stop):
        self._checkpoints, self._seconds, self._stop = checkpoints, seconds, stop
        self._last = time.monotonic()

    def is_due(self, within_epoch: bool = False) -> bool:
        """By the first process's clock: the others don't save anything."""
        least = max(self._seconds, _WITHIN_EPOCH) if within_epoch else self._seconds
        due = time.monotonic() - self._last >= least
        return due and self._checkpoints is not None and hosts.is_first()

    def pause(self) -> Pause:
        """What this process would interrupt an epoch for."""
        if self._stop.asked:
            return Pause.STOP
        return Pause.SAVE if self.is_due(within_epoch=True) else Pause.NONE

    def save(self, state: TrainState, record: Record) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(record["step"], state, record)
            self._last = time.monotonic()


def train(
    trainer: Trainer,
    seed: Seed,
    folder: pathlib.Path | None = None,
    checkpoint_seconds: float = 0.0,
    on_epoch: Callable[[Record], None] = lambda record: None,
    on_step: Callable[[int], None] = lambda step: None,
    monitor: Callable[[int, Variables], Record] = lambda epoch, variables: {},
    stop: Stop | None = None,
    after_epoch: Callable[[TrainState, int], TrainState] = lambda state, epoch: state,
) -> tuple[TrainState, Record]:
    """Trains a network, going on from the latest checkpoint in `folder` where there is one.

    Args:
      trainer: from `make_trainer`, or of several networks: then metrics are lists.
      seed: of initial weights, order of images, augmentation and dropout.
      folder: where to keep the latest checkpoint; None for none.
      checkpoint_seconds: save after an epoch only when so much time has passed since the last
        save, and within an epoch when a minute has, too; the last epoch is always saved. Does not
        influence the result.
      on_epoch: called after each epoch with {"epoch", "step", "loss", "seconds"}, the objective's
        metrics, and "skipped" where damaged images were; seconds since the training started,
        interruptions left out.
      on_step: called with the number of finished steps, also once when going on.
      monitor: (finished epochs, variables) -> what on_epoch's record shall hold besides.
      stop: looked at after every step; when it is asked for, the state is saved. What was asked
        for before the first step ends the training at once.
      after_epoch: (state, finished epochs) -> the state that training goes on with, and ends with.

    Returns:
      The last state and the last epoch's record.

    Raises:
      DivergedError: the loss, or what would be saved, is not finite; the last checkpoint is kept.
      WorkdirError: the checkpoint is damaged or another training's.
      StoppedError: `stop` was asked for.
    """
    begun, stop, recipe = time.monotonic(), stop or Stop(), trainer.recipe
    with contextlib.ExitStack() as stack:
        # Until a step is compiled and done, a stop loses nothing; several hosts agree on theirs.
        hold = stack.enter_context(stop.held(at_once=hosts.count() > 1))
        checkpoints = stack.enter_context(Checkpoints(folder)) if folder else None
        state, record = _restore(trainer, seed, checkpoints)
        start, saver = begun - record["seconds"], _Saver(checkpoints, checkpoint_seconds, stop)
        on_step(record["step"])

        def stepped(step: int) -> None:
            hold()
            on_step(step)

        epoch_steps = trainer.epoch_steps
        steps = range(record["step"], recipe.epochs * epoch_steps)
        place = hosts.index(), hosts.count()
        batches = training_batches(trainer.split, seed, steps, recipe.batch_size, *place)
        stack.enter_context(contextlib.closing(batches))
        while record["epoch"] < recipe.epochs:
            state, sums, paused = _train_steps(trainer, state, batches, record, saver, stepped)
            # A loss tells of the weights before its step: the last ones have had none.
            if name := _not_finite(trainer, state):
                step = record["epoch"] * epoch_steps + sums["steps"]
                raise DivergedError(f"{name} is not finite after step {step}; {_WAY_ON}")
            seconds = round(time.monotonic() - start, 3)
            if sums["steps"] == epoch_steps:
                record = _epoch_record(record["epoch"] + 1, epoch_steps, sums, seconds)
                state = after_epoch(state, record["epoch"])
                on_epoch({**record, **monitor(record["epoch"], state.variables)})
            else:
                step = record["epoch"] * epoch_steps + sums["steps"]
                record = {"epoch": record["epoch"], "step": step, "sums": sums, "seconds": seconds}
            if paused or record["epoch"] == recipe.epochs or saver.is_due():
                content = {**record, **_network_record(trainer)}
                saver.save(state.kept, content)
            if paused == Pause.STOP:
                raise stop.error(f"the training is saved after step {record['step']}")
    return state, record


def _not_finite(trainer: Trainer, state: TrainState) -> str:
    """Name of the first array with a number that is not finite; empty where there is none."""
    for path, x in jax.tree_util.tree_leaves_with_path(state.kept):
        finite = np.isfinite(np.asarray(x))
        if not np.all(finite):
            return jax.tree_util.keystr(path) + trainer.whose(~finite)
    return ""


def _network_record(trainer: Trainer) -> Record:
    """What a checkpoint's record holds of the network, or of several at once."""
    if trainer.vectors:
        return {"vectors": [list(vector) for vector in trainer.vectors]}
    return module_record(trainer.task.net.of(trainer.channels))


def _epoch_record(epoch: int, steps: int, sums: Record, seconds: float) -> Record:
    """Of a finished epoch: the means of its steps' metrics."""
    means = {
        key: np.divide(value, steps).tolist()
        for key, value in sums.items()
        if key not in ("steps", "skipped")
    }
    skipped = {"skipped": sums["skipped"]} if sums["skipped"] else {}
    return {"epoch": epoch, "step": epoch * steps, **means, **skipped, "seconds": seconds}


def _restore(
    trainer: Trainer, seed: Seed, checkpoints: Checkpoints | None
) -> tuple[TrainState, Record]:
    record, devices = checkpoints.record() if checkpoints else None, trainer.task.devices
    if record is None:
        return replicated(trainer.start(seed), devices), {"epoch": 0, "step": 0, "seconds": 0.0}
    _check_record(trainer, record, checkpoints.folder)
    state = checkpoints.restore(trainer.abstract())
    if name := _not_finite(trainer, state):  # earlier versions saved that
        raise WorkdirError(
            f"{name} is not finite in {checkpoints.folder}/{record['step']}: the training has "
            f"diverged; {_WAY_ON}, in another --workdir"
        )
    kept = {key: value for key, value in record.items() if key not in (*_WIDTHS, "fields")}
    return replicated(trainer.start(seed, state), devices), kept


def _check_record(trainer: Trainer, record: Record, folder: pathlib.Path) -> None:
    """Whether a training of this recipe can have saved it; its digest doesn't tell."""
    epoch_steps = trainer.epoch_steps
    try:
        begun, left = divmod(record["step"], epoch_steps)
        fits = begun == record["epoch"] and begun + bool(left) <= trainer.recipe.epochs
        fits = fits and record["seconds"] >= 0 and (not left or record["sums"]["steps"] == left)
        own = _network_record(trainer)
        widths = {name: own.get(name) for name in _WIDTHS}
        fits = fits and all(record.get(name, given) == given for name, given in widths.items())
    except (KeyError, TypeError):
        fits = False
    if not fits:
        raise WorkdirError(
            f"the checkpoints in {folder} are not of this training; delete the folder, and it "
            "begins anew"
        )


def _train_steps(
    trainer: Trainer,
    state: TrainState,
    batches: Iterator[Batch],
    record: Record,
    saver: _Saver,
    on_step: Callable[[int], None],
) -> tuple[TrainState, Record, Pause]:
    """Goes on from `record` to the end of its epoch, or until `saver` has to.

    Returns:
      The state; the number of "steps" done in this epoch, of images "skipped" because damaged, and
      the sums of the steps' metrics; what was asked for.
    """
    devices, skipped = len(trainer.task.devices), 0
    count = trainer.epoch_steps
    pending: collections.deque = collections.deque()
    sums = {"steps": 0, "skipped": 0, **record.get("sums", {})}
    paused, ask = Pause.NONE, hosts.most_urgent(trainer.task.devices)

    def fetch() -> None:
        nonlocal paused
        metrics, asked = pending.popleft()
        paused = max(paused, Pause(int(asked)))
        values = {key: np.asarray(value, np.float64) for key, value in metrics.items()}
        sums["steps"] += 1
        wrong = ~np.isfinite(values["loss"])
        if np.any(wrong):
            raise DivergedError(
                f"the loss{trainer.whose(wrong)} became {values['loss'][wrong][0]} in epoch "
                f"{record['epoch'] + 1}, step {record['epoch'] * count + sums['steps']}; {_WAY_ON}"
            )
        sums.update({key: np.add(sums.get(key, 0.0), x).tolist() for key, x in values.items()})

    # Not a lax.scan over steps: XLA on CPU runs convolution gradients several times slower in it.
    for step in range(record["step"], (record["epoch"] + 1) * count):
        batch = next(batches)
        skipped += int(np.sum(batch.pop("damaged", 0)))
        state, metrics = trainer.step(state, shard(batch, devices))
        on_step(step + 1)
        asked = saver.pause()
        pending.append((metrics, ask(asked)))
        if len(pending) > _IN_FLIGHT:
            fetch()
        # What another host asks for is known some steps later, at the same step on all.
        if paused or (asked and hosts.count() == 1):
            break
    while pending:
        fetch()
    sums["skipped"] += hosts.total(skipped)
    return state, sums, paused
