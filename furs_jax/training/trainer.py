"""What a run's trainings share, and a network's training step, compiled for any seed."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax.data.augment import normalise
from furs_jax.data.batches import Seed, steps_per_epoch
from furs_jax.data.dataset import AnySplit, Dataset
from furs_jax.gates import Gates
from furs_jax.machine import hosts
from furs_jax.networks.network import Network
from furs_jax.objectives import Objective, Variables
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.options.schema import AUTO, TWO
from furs_jax.training.recipe import Recipe, Schedule, make_optimizer, make_schedule
from furs_jax.training.step import (
    AXIS,
    Apply,
    Augmentation,
    Compiled,
    Extra,
    TrainState,
    TrainStep,
    abstract,
    compiled,
    make_train_step,
    shard,
)

# MiB of convolutions' outputs on a CPU device. In turn, one core, large pages, time as one program
# over time as two: plain-20 0.96 (11.5 MiB), 1.06 (23), 1.07 (46); ResNet-20 1.03, 1.14, 1.18 at
# the same, 1.41 (92); MnasNet at 0.4 0.92 (17.8), 1.01 (71), 0.97 to 1.02 (142); ResNet-14 of 8 to
# 32 channels 1.01 (12.7), 1.06 (25). MnasNet on two devices 1.00 (71 each). With small pages two
# gain more.
_TWO_FROM = 20


class Task(NamedTuple):
    """What all trainings of a run share."""

    net: Network
    dataset: Dataset
    devices: tuple[jax.Device, ...]
    dtype: str  # of the computation
    eval_batch_size: int
    objective: type[Objective] = CrossEntropy  # of trainings that are not taught
    step_programs: str = AUTO  # of `takes_two_programs`

    def preprocess(self, images: jax.Array) -> jax.Array:
        """uint8 images to normalised float32 ones."""
        return normalise(images, self.dataset.mean, self.dataset.std)

    def apply(self, channels: Sequence[int]) -> Apply:
        """(variables, uint8 images, gates) -> logits of the network of `channels`."""
        module = self.net.module(channels, dtype=self.dtype)

        def apply(variables: Variables, images: jax.Array, gates: Gates) -> jax.Array:
            return module.apply(variables, self.preprocess(images), gates)

        return apply


class Trainer(NamedTuple):
    """A compiled training step of one network and recipe, for any seed.

    Or of several networks at once, see `furs_jax.training.stacked`: then a seed is a tuple.
    """

    task: Task
    channels: tuple[int, ...]
    recipe: Recipe
    split: AnySplit
    init: Callable[[Seed], TrainState]
    abstract: Callable[[], TrainState]  # shapes and dtypes of the state
    step: Compiled
    objective: Objective
    # Of initial weights, even where `init` takes others
    compile_init: Callable[[], object] = lambda: None
    vectors: tuple[tuple[int, ...], ...] = ()  # of several networks within that of `channels`

    @property
    def epoch_steps(self) -> int:
        return steps_per_epoch(self.split, self.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Of a whole training."""
        return self.recipe.epochs * self.epoch_steps

    @property
    def schedule(self) -> Schedule:
        return make_schedule(self.recipe, self.epoch_steps, len(self.channels))

    def start(self, seed: Seed, state: TrainState | None = None) -> TrainState:
        """The initial state of a seed, or a restored one, with what a step needs besides."""
        state = self.init(seed) if state is None else state
        return state.replace(extra=self._extra(seed))

    def compile(self) -> None:
        """The step, as a training would do first; only shapes and dtypes are looked at."""
        devices, count = self.task.devices, len(self.vectors)
        several, seed = ((count,), (0,) * count) if count else ((), 0)
        images = self.recipe.batch_size // hosts.count()
        batch = {
            "image": np.empty((images, *several, *self.task.net.image_shape), np.uint8),
            "label": np.empty((images, *several), np.int32),
        }
        state = abstract(self.abstract().replace(extra=self._extra(seed)), devices)
        self.step.compile(state, shard(batch, len(devices)))

    def _extra(self, seed: Seed) -> Extra:
        if not self.vectors:
            return self._extra_of(self.channels, seed)
        each = map(self._extra_of, self.vectors, seed)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def _extra_of(self, channels: Sequence[int], seed: int) -> Extra:
        kept = self.objective.init(jax.random.key(seed), self.task.net.module(channels))
        return Extra(kept, self.schedule)

    def whose(self, wrong: np.ndarray) -> str:
        """Of several networks the first with something wrong, as messages name it.

        Args:
          wrong: bool; its first axis is the network, where there are several.
        """
        if not self.vectors:
            return ""
        return whose(self.vectors, int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1))))


def whose(vectors: Sequence[Sequence[int]], number: int) -> str:
    """One of several networks, as messages name it."""
    widths = " ".join(map(str, vectors[number]))
    return f" of network {number + 1} of {len(vectors)} ({widths})"


def takes_two_programs(task: Task, channels: Sequence[int], batch_size: int) -> bool:
    """Whether a training step is compiled as two programs, see `compiled`: as the task says.

    By itself where that was measured faster: on CPU, if the activations of a device's images are
    more than its caches hold.

    Args:
      batch_size: images, of all networks that are trained at once.
    """
    if task.step_programs != AUTO:
        return task.step_programs == TWO
    if task.devices[0].platform != "cpu":
        return False
    layers = task.net.layers(channels)
    values = sum(layer.height * layer.width * layer.outputs for layer in layers)
    images = batch_size / len(task.devices)
    return images * values * jnp.dtype(task.dtype).itemsize >= _TWO_FROM * 2**20


def make_trainer(
    task: Task,
    channels: Sequence[int],
    recipe: Recipe,
    split: AnySplit,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Trainer:
    """Prepares to train the network of `channels` on `split`.

    Args:
      objective: by default the task's.
      optimizer: by default the recipe's.
    """
    objective = objective or task.objective.of_recipe(recipe)
    optimizer = optimizer or make_optimizer(recipe)
    two_programs = takes_two_programs(task, channels, recipe.batch_size)
    step = step_of(task, channels, recipe, objective, optimizer, two_programs)
    module = task.net.module(channels, dtype=task.dtype, axis_name=AXIS)
    initial = _initial(module, task.net.image_shape, optimizer)
    init = _compiled_once(initial, task.devices[0].platform)
    return Trainer(
        task=task,
        channels=tuple(channels),
        recipe=recipe,
        split=split,
        init=init,
        abstract=lambda: jax.eval_shape(initial, jnp.int32(0)),
        step=compiled(step, task.devices, two_programs),
        objective=objective,
        compile_init=lambda: init(0),
    )


def step_of(
    task: Task,
    channels: Sequence[int],
    recipe: Recipe,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    two_programs: bool,
) -> TrainStep:
    """The training step of a trainer, to be `compiled`."""
    return make_train_step(
        task.net.module(channels, dtype=task.dtype, axis_name=AXIS),
        optimizer,
        objective,
        preprocess=task.preprocess,
        augmentation=Augmentation(recipe.crop_margin, recipe.flip),
        two_programs=two_programs,
    )


def _initial(
    module: Any, image_shape: tuple[int, int, int], optimizer: optax.GradientTransformation
) -> Callable[[jax.Array], TrainState]:
    """Seed, int32, shape=() -> the state that a training from scratch begins with."""

    def initial(seed: jax.Array) -> TrainState:
        variables = module.init(jax.random.key(seed), jnp.zeros((1, *image_shape)))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            seed=seed,
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
        )

    return initial


def _compiled_once(
    initial: Callable[[jax.Array], TrainState], platform: str
) -> Callable[[int], TrainState]:
    """`initial` as a program: who needs it while it is compiled ahead waits for that."""
    # Random numbers for many arrays compile slowly; on CPU this program, run once, was compiled
    # five times as fast without optimisation.
    options = {"xla_backend_optimization_level": 0} if platform == "cpu" else None
    program, lock = jax.jit(initial, compiler_options=options), threading.Lock()

    def init(seed: int) -> TrainState:
        with lock:
            return program(jnp.int32(seed))

    return init
