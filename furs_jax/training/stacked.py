"""Several narrow networks trained at once, by one program: a stack.

Each is the last channels of each site of one network, which at every site is as wide as the widest
of them; the other channels are gated away, and their weights are zero and stay so. A narrow network
begins with the weights that it would have begun with alone, and meets the images, crops and dropout
that it would have met: it ends as it would have, but for the order in which sums are taken. All
arrays of the state have the network as their first axis.

One program is compiled for all, and every network costs as much as the widest.
"""

import concurrent.futures
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.data.dataset import AnySplit
from furs_jax.errors import ConfigError
from furs_jax.gates import Gates
from furs_jax.machine import hosts
from furs_jax.machine.cores import usable_cores
from furs_jax.networks.filters import placed_variables, pruned_variables
from furs_jax.networks.memory import peak_bytes
from furs_jax.networks.network import Network, TracedNetwork
from furs_jax.networks.removal import random_like
from furs_jax.objectives import Objective, Variables
from furs_jax.options.schema import Recipe
from furs_jax.training.evaluate import Evaluator, scores
from furs_jax.training.loading import net_shapes
from furs_jax.training.narrowed import Narrowed
from furs_jax.training.recipe import make_optimizer
from furs_jax.training.step import (
    AXIS,
    Extra,
    TrainState,
    compiled,
    data_parallel,
    make_eval_step,
    replicated,
    side_by_side,
)
from furs_jax.training.trainer import (
    Task,
    Trainer,
    make_trainer,
    step_of,
    takes_two_programs,
    whose,
)

Vectors = Sequence[Sequence[int]]
_SHARE = 0.7  # of a device's memory that is counted on, as convolutions' algorithms take some


class Stack:
    """Narrow networks within the widest: where their arrays are in its arrays.

    Attributes:
      vectors: of the narrow networks.
      widths: the same, int32, shape (B, L).
      net: the widest network.
    """

    def __init__(self, net: Network, vectors: Vectors):
        self.widths = np.array(vectors, np.int32)
        self.vectors = tuple(map(tuple, self.widths.tolist()))
        self.net = net.of(np.max(self.widths, axis=0).tolist())
        self._removed = [list(map(np.arange, own)) for own in self.net.channels - self.widths]

    def check(self) -> None:
        """Raises ConfigError where a narrow network is no part of the widest."""
        fault = f"several widths of {self.net.name} can't be trained at once"
        try:
            for number, vector in enumerate(self.vectors):
                self._placed(number, jax.tree.map(_zeros, net_shapes(self.net, vector)))
        except (ValueError, LookupError) as error:
            raise ConfigError(f"{fault}: {error}") from error
        if isinstance(self.net, TracedNetwork) and not self._computes_the_same():
            raise ConfigError(f"{fault}: {self.net.name} doesn't lose channels in front of others")

    def _computes_the_same(self) -> bool:
        """Whether the first network, of random weights, does alone and within the widest."""
        rng, own = np.random.default_rng(0), self.vectors[0]
        variables = dict(random_like(net_shapes(self.net, own), rng))
        images = rng.normal(size=(2, *self.net.image_shape)).astype(np.float32)
        alone = self.net.module(own, dtype=jnp.float32)
        within = Narrowed(self.net.module(self.net.channels, dtype=jnp.float32), own)
        expected = jax.jit(alone.apply)(variables, images)
        found = jax.jit(within.apply)(self._placed(0, variables), images)
        return np.allclose(found, expected, rtol=1e-3, atol=1e-4 * np.std(expected))

    def variables(self, each: Sequence[Variables]) -> Variables:
        """The stack of the networks of these variables."""
        return _stacked([self._placed(number, own) for number, own in enumerate(each)])

    def state(self, each: Sequence[TrainState]) -> TrainState:
        """The stack of the networks of these states, without what the objective keeps."""
        place = [_of_collections(self._placed, number, own) for number, own in enumerate(each)]
        return _stacked(place).replace(widths=self.widths)

    def alone(self, state: TrainState, number: int) -> TrainState:
        """The state of one of a stack's networks, as of its own training."""
        own = jax.tree.map(lambda x: np.asarray(x)[number], state.kept.replace(widths=None))
        return _of_collections(self._cut, number, own)

    def _placed(self, number: int, variables: Variables) -> Variables:
        return placed_variables(self.net, self._removed[number], variables)

    def _cut(self, number: int, variables: Variables) -> Variables:
        return pruned_variables(self.net, self._removed[number], variables)


def _zeros(x: jax.ShapeDtypeStruct) -> np.ndarray:
    return np.zeros(x.shape, x.dtype)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *each: np.stack(each), *trees)


def _of_collections(
    fn: Callable[[int, Variables], Variables], number: int, state: TrainState
) -> TrainState:
    """The state with what fn makes of parameters, of statistics, and of what mirrors parameters."""
    return jax.tree.map(
        lambda x: fn(number, {"": x})[""] if isinstance(x, dict) else x,
        state,
        is_leaf=lambda x: isinstance(x, dict),
    )


def make_stacked_trainer(
    task: Task,
    vectors: Vectors,
    recipe: Recipe,
    split: AnySplit,
    objective: Objective | None = None,
) -> Trainer:
    """Prepares to train the networks of `vectors` on `split`, each by a seed of its own.

    A network's state is read from the stack's by `Stack.alone`.

    Raises:
      ConfigError: a narrow network is no part of a wider one.
    """
    stack = Stack(task.net, vectors)
    stack.check()
    each = [make_trainer(task, vector, recipe, split, objective) for vector in stack.vectors]
    channels, objective = stack.net.channels, each[0].objective
    widest = make_trainer(task, channels, recipe, split, objective)
    count, optimizer = len(each), make_optimizer(recipe)
    two_programs = takes_two_programs(task, channels, count * recipe.batch_size)
    step = step_of(task, channels, recipe, objective, optimizer, two_programs)

    def compile_init() -> None:
        workers = usable_cores() if hosts.count() == 1 else 1  # hosts compile in one order
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda trainer: trainer.compile_init(), each))

    def init(seeds: tuple[int, ...]) -> TrainState:
        compile_init()
        return stack.state([own.init(seed) for own, seed in zip(each, seeds, strict=True)])

    def abstract() -> TrainState:
        state = widest.abstract()
        several = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), state)
        return several.replace(widths=jax.ShapeDtypeStruct(stack.widths.shape, jnp.int32))

    return widest._replace(
        init=init,
        abstract=abstract,
        step=compiled(side_by_side(step), task.devices, two_programs),
        compile_init=compile_init,
        vectors=stack.vectors,
    )


def most_at_once(task: Task, vectors: Vectors, recipe: Recipe, split: AnySplit) -> int:
    """How many of these networks are trained at once: as many as a device's memory surely takes.

    1 on CPU, where single steps are faster, see `furs_jax.bench.at_once`, where a device doesn't
    tell its memory, and where narrow networks are no part of the widest.
    """
    device, stack = task.devices[0], Stack(task.net, vectors)
    memory = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    if "bytes_limit" not in memory:
        return 1
    try:
        stack.check()
    except ConfigError:
        return 1
    each = step_bytes(task, stack.net.channels, recipe, split)
    return min(max(int(_SHARE * memory["bytes_limit"] / each), 1), len(vectors))


def step_bytes(task: Task, channels: Sequence[int], recipe: Recipe, split: AnySplit) -> int:
    """Of a device's memory that a network's training step takes, estimated from its trace."""
    objective = task.objective.of_recipe(recipe)
    step = step_of(task, channels, recipe, objective, make_optimizer(recipe), two_programs=False)
    trainer = make_trainer(task, channels, recipe, split)
    state = trainer.abstract().replace(extra=Extra(None, trainer.schedule))
    images = recipe.batch_size // len(task.devices)
    batch = {
        "image": jax.ShapeDtypeStruct((1, images, *task.net.image_shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((1, images), jnp.int32),
    }
    given = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves((state, batch)))
    return given + peak_bytes(jax.vmap(step, (None, 0), axis_name=AXIS), state, batch)


class StackEvaluator(Evaluator):
    """`Evaluator` of several narrow networks at once."""

    def __init__(self, task: Task, vectors: Vectors):
        self._task, self._stack = task, Stack(task.net, vectors)
        module = self._stack.net.module(self._stack.net.channels, dtype=task.dtype)

        def apply(narrow: Any, images: jax.Array, gates: Gates) -> jax.Array:
            variables, widths = narrow
            return Narrowed(module, widths).apply(variables, task.preprocess(images), gates)

        step = jax.vmap(make_eval_step(apply), (0, None))
        self._step = data_parallel(step, task.devices)

    def __call__(self, each: Sequence[Variables], split: AnySplit) -> list[dict[str, float]]:
        """Of the networks of these variables, in the vectors' order.

        Raises:
          DivergedError: the loss of one is not finite.
        """
        stack = self._stack.variables(each), self._stack.widths
        sums = self.sums(replicated(stack, self._task.devices), split)
        return [
            scores(
                {key: value[number] for key, value in sums.items()},
                split,
                whose(self._stack.vectors, number),
            )
            for number in range(len(each))
        ]
