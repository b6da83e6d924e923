"""One network, from its initial weights to trained ones; resumable after every epoch."""

import collections
import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax.checkpoint import Checkpoints
from furs_jax.data import AnySplit, Dataset, Split, evaluation_batches, training_batches
from furs_jax.data.augment import normalise
from furs_jax.data.batches import Batch, steps_per_epoch
from furs_jax.distill import Teacher, distillation_loss
from furs_jax.errors import ConfigError, DivergedError
from furs_jax.networks import Network
from furs_jax.step import (
    AXIS,
    Augmentation,
    TrainState,
    Variables,
    data_parallel,
    make_eval_step,
    make_train_step,
    shard,
)

Record = dict[str, Any]

# Steps whose metrics may be outstanding: enough to keep a device busy, few enough that a NaN is
# noticed at once and that queued batches take little memory.
_IN_FLIGHT = 8


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained. configs/default.py explains the fields and gives their units."""

    epochs: int
    batch_size: int
    learning_rate: float
    end_learning_rate: float
    warmup_epochs: float
    momentum: float
    nesterov: bool
    weight_decay: float
    label_smoothing: float
    dropout: float
    dropout_by_epoch: bool
    dropout_by_depth: bool
    crop_margin: int
    flip: bool

    def check(self, option: str, split: AnySplit) -> None:
        """Raises ConfigError where the recipe can't train on `split`; `option` names it."""
        if self.epochs < 1:
            raise ConfigError(f"{option}.epochs={self.epochs} must be at least 1")
        if self.batch_size > len(split.labels):
            raise ConfigError(
                f"{option}.batch_size={self.batch_size} is more than the {len(split.labels)} "
                "training images"
            )
        if self.crop_margin and not isinstance(split, Split):
            raise ConfigError(
                f"{option}.crop_margin={self.crop_margin} must be 0 for images on disk: they get "
                "random resized crops (data.min_scale)"
            )
        if not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"{option}.dropout and .label_smoothing must be in [0, 1)")
        if not self.learning_rate > 0 or not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError(
                f"{option}.learning_rate must be above 0 and .warmup_epochs in [0, epochs)"
            )


class Task(NamedTuple):
    """What all trainings of a run share."""

    net: Network
    dataset: Dataset
    devices: tuple[jax.Device, ...]
    dtype: str  # of the computation
    eval_batch_size: int

    def preprocess(self, images: jax.Array) -> jax.Array:
        """uint8 images to normalised float32 ones."""
        return normalise(images, self.dataset.mean, self.dataset.std)


class Trainer(NamedTuple):
    """A compiled training step of one network and recipe, for any seed."""

    task: Task
    channels: tuple[int, ...]
    recipe: Recipe
    split: AnySplit
    init: Callable[[int], TrainState]
    abstract: Callable[[], TrainState]  # shapes and dtypes of the state
    step: Callable[[TrainState, dict], tuple[TrainState, dict]]
    teacher: Variables | None = None


def make_trainer(
    task: Task,
    channels: Sequence[int],
    recipe: Recipe,
    split: AnySplit,
    teacher: Teacher | None = None,
) -> Trainer:
    """Prepares to train the network of `channels` on `split`, taught by `teacher` if given."""
    epoch_steps = steps_per_epoch(split, recipe.batch_size)
    optimizer = _optimizer(recipe, epoch_steps)
    module = task.net.module(channels, dtype=task.dtype, axis_name=AXIS)
    step = make_train_step(
        module,
        optimizer,
        dropout_rates=_dropout_schedule(recipe, epoch_steps, len(channels)),
        preprocess=task.preprocess,
        augmentation=Augmentation(recipe.crop_margin, recipe.flip),
        label_smoothing=recipe.label_smoothing,
        **_teaching(teacher),
    )

    def initial(seed: jax.Array) -> TrainState:
        images = jnp.zeros((1, *task.net.image_shape))
        variables = module.init(jax.random.key(seed), images)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            seed=seed,
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
        )

    # Random numbers for many arrays compile slowly; on CPU this program, run once, was compiled
    # five times as fast without optimisation.
    on_cpu = task.devices[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    init = jax.jit(initial, compiler_options=options)
    return Trainer(
        task=task,
        channels=tuple(channels),
        recipe=recipe,
        split=split,
        init=lambda seed: init(jnp.int32(seed)),
        abstract=lambda: jax.eval_shape(initial, jnp.int32(0)),
        step=data_parallel(step, task.devices, donate=True),
        teacher=teacher.variables if teacher else None,
    )


def _teaching(teacher: Teacher | None) -> dict[str, Any]:
    """What `make_train_step` gets to know of a teacher."""
    if teacher is None:
        return {}

    def loss(variables: Variables, images: jax.Array, logits: jax.Array) -> jax.Array:
        taught = jax.lax.stop_gradient(teacher.module.apply(variables, images))
        return distillation_loss(logits, taught, teacher.temperature)

    return {"teacher_loss": loss, "teacher_share": teacher.alpha}


def _optimizer(recipe: Recipe, epoch_steps: int) -> optax.GradientTransformation:
    """SGD as in PyTorch: the decay is added to the gradient, before the momentum."""
    warmup, total = round(recipe.warmup_epochs * epoch_steps), recipe.epochs * epoch_steps
    schedule = optax.cosine_decay_schedule(
        recipe.learning_rate, total - warmup, recipe.end_learning_rate / recipe.learning_rate
    )
    if warmup:
        ramp = optax.linear_schedule(0.0, recipe.learning_rate, warmup)
        schedule = optax.join_schedules([ramp, schedule], [warmup])

    def learning_rate(count: jax.Array) -> jax.Array:
        return schedule(count.astype(jnp.float32))

    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(learning_rate, recipe.momentum, recipe.nesterov),
    )


def _dropout_schedule(
    recipe: Recipe, epoch_steps: int, sites: int
) -> Callable[[jax.Array], jax.Array]:
    """Step -> drop rates of the sites in training, shape (L,)."""
    depth = np.arange(1, sites + 1) / sites if recipe.dropout_by_depth else np.ones(sites)
    full = jnp.asarray(recipe.dropout * depth, jnp.float32)

    def rates(step: jax.Array) -> jax.Array:
        if not recipe.dropout_by_epoch:
            return full
        epoch = step // epoch_steps
        return full * (epoch.astype(jnp.float32) / recipe.epochs)

    return rates


def train(
    trainer: Trainer,
    seed: int,
    folder: pathlib.Path | None = None,
    checkpoint_seconds: float = 0.0,
    on_epoch: Callable[[Record], None] = lambda record: None,
    on_step: Callable[[int], None] = lambda step: None,
    monitor: Callable[[int, Variables], Record] = lambda epoch, variables: {},
) -> tuple[Variables, Record]:
    """Trains a network, going on from the latest checkpoint in `folder` where there is one.

    Args:
      trainer: from `make_trainer`.
      seed: of initial weights, order of images, augmentation and dropout.
      folder: where to keep the latest checkpoint; None for none.
      checkpoint_seconds: save after an epoch only when so much time has passed since the last
        save; the last epoch is always saved. Does not influence the result.
      on_epoch: called after each epoch with {"epoch", "step", "loss", "accuracy", "seconds"},
        and "skipped" where damaged images were; seconds since the training started, interruptions
        left out.
      on_step: called with the number of finished steps, also once when going on.
      monitor: (finished epochs, variables) -> what on_epoch's record shall hold besides.

    Returns:
      The variables and the last epoch's record.

    Raises:
      DivergedError: the loss is not finite; the last checkpoint is kept.
    """
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder)) if folder else None
        state, record = _restore(trainer, seed, checkpoints)
        start, saved = begun - record["seconds"], time.monotonic()
        on_step(record["step"])
        epoch_steps = steps_per_epoch(trainer.split, trainer.recipe.batch_size)
        steps = range(record["step"], trainer.recipe.epochs * epoch_steps)
        batches = training_batches(trainer.split, seed, steps, trainer.recipe.batch_size)
        stack.enter_context(contextlib.closing(batches))
        for epoch in range(record["epoch"], trainer.recipe.epochs):
            state, metrics = _train_epoch(trainer, state, batches, epoch, on_step)
            step = (epoch + 1) * epoch_steps
            record = {"epoch": epoch + 1, "step": step, **metrics}
            record["seconds"] = round(time.monotonic() - start, 3)
            on_epoch({**record, **monitor(epoch + 1, state.variables)})
            last = epoch + 1 == trainer.recipe.epochs
            if checkpoints and (last or time.monotonic() - saved >= checkpoint_seconds):
                content = {**record, "channels": list(trainer.channels)}
                checkpoints.save(epoch + 1, state.replace(teacher=None), content)
                saved = time.monotonic()
    return state.variables, record


def _restore(
    trainer: Trainer, seed: int, checkpoints: Checkpoints | None
) -> tuple[TrainState, Record]:
    record = checkpoints.record() if checkpoints else None
    if record is None:
        state = trainer.init(seed).replace(teacher=trainer.teacher)
        return state, {"epoch": 0, "step": 0, "seconds": 0.0}
    state = checkpoints.restore(trainer.abstract()).replace(teacher=trainer.teacher)
    return state, {key: value for key, value in record.items() if key != "channels"}


def _train_epoch(
    trainer: Trainer,
    state: TrainState,
    batches: Iterator[Batch],
    epoch: int,
    on_step: Callable[[int], None],
) -> tuple[TrainState, dict[str, float]]:
    """One epoch: the state after it and the means of its steps' metrics.

    Where damaged images were skipped, the metrics hold their number, "skipped".
    """
    devices, skipped = len(trainer.task.devices), 0
    count = steps_per_epoch(trainer.split, trainer.recipe.batch_size)
    pending: collections.deque = collections.deque()
    values: list[dict[str, float]] = []

    def fetch() -> None:
        values.append({key: float(value) for key, value in pending.popleft().items()})
        if not math.isfinite(values[-1]["loss"]):
            raise DivergedError(
                f"the loss became {values[-1]['loss']} in epoch {epoch + 1}, step "
                f"{epoch * count + len(values)}; lower the learning rate or lengthen the warmup"
            )

    # Not a lax.scan over steps: XLA on CPU runs convolution gradients several times slower in it.
    for step in range(epoch * count, (epoch + 1) * count):
        batch = next(batches)
        skipped += int(np.sum(batch.pop("damaged", 0)))
        state, metrics = trainer.step(state, shard(batch, devices))
        pending.append(metrics)
        if len(pending) > _IN_FLIGHT:
            fetch()
        on_step(step + 1)
    while pending:
        fetch()
    means = {key: float(np.mean([v[key] for v in values])) for key in values[0]}
    return state, {**means, "skipped": skipped} if skipped else means


def make_evaluator(
    task: Task, channels: Sequence[int]
) -> Callable[[Variables, AnySplit], dict[str, float]]:
    """A compiled evaluation of one network: (variables, split) -> loss, top1, top5 (shares).

    Where damaged images were skipped, also their number, "skipped".
    """
    module = task.net.module(channels, dtype=task.dtype)

    def apply(variables, images, gates):
        return module.apply(variables, task.preprocess(images), gates)

    step = data_parallel(make_eval_step(apply), task.devices)

    def evaluate(variables: Variables, split: AnySplit) -> dict[str, float]:
        total: collections.Counter = collections.Counter()
        for batch in evaluation_batches(split, task.eval_batch_size):
            sums = step(variables, shard(batch, len(task.devices)))
            total.update({key: float(value) for key, value in sums.items()})
        scores = {key: total[key] / total["count"] for key in ("loss", "top1", "top5")}
        skipped = len(split.labels) - round(total["count"])
        return {**scores, "skipped": skipped} if skipped else scores

    return evaluate
