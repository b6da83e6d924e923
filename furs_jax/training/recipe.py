"""How a network is trained: checks, learning rate and drop rates."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax.data.dataset import AnySplit, Split
from furs_jax.errors import ConfigError
from furs_jax.options.schema import Recipe, check_option

_MOST_STEPS = 2**31 - 1  # they are counted in 32 bits


def check_recipe(recipe: Recipe, option: str, split: AnySplit) -> None:
    """Raises ConfigError where the recipe can't train on `split`; `option` names it."""
    for field, value in dataclasses.asdict(recipe).items():
        check_option(f"train.{field}", value, f"{option}.{field}")
    if recipe.batch_size > len(split.labels):
        raise ConfigError(
            f"{option}.batch_size={recipe.batch_size} is more than the {len(split.labels)} "
            "training images"
        )
    if recipe.crop_margin and not isinstance(split, Split):
        raise ConfigError(
            f"{option}.crop_margin={recipe.crop_margin} must be 0 for images on disk: they get "
            "random resized crops (data.min_scale)"
        )
    side = min(split.image_shape[:2])
    if recipe.crop_margin >= side:
        raise ConfigError(
            f"{option}.crop_margin={recipe.crop_margin} must be below the images' {side} pixels, "
            "or a crop may hold nothing of them"
        )
    if recipe.warmup_epochs >= recipe.epochs:
        raise ConfigError(
            f"{option}.warmup_epochs={recipe.warmup_epochs:g} must be below {option}.epochs="
            f"{recipe.epochs}"
        )
    steps = recipe.epochs * (len(split.labels) // recipe.batch_size)
    if steps > _MOST_STEPS:
        raise ConfigError(
            f"{option}.epochs={recipe.epochs} are {steps:,} steps, more than {_MOST_STEPS:,}"
        )


class Schedule(NamedTuple):
    """What of a recipe changes from step to step, in numbers, which a step's program is given.

    So trainings that differ in nothing else, as a search's and the final ones, share one program.

    Attributes:
      learning_rate: the highest one; float32, shape=(), as all that aren't described.
      last: of the learning rate, the share that is left in the end.
      warmup, decay: steps in which it grows from 0, and then falls by half a cosine.
      dropout: full rates of the sites, float32, shape (L,); None for no dropout.
      first_share, epochs: dropout's share of them is (first_share + epoch) / epochs.
      epoch_steps: steps of an epoch, int32.
    """

    learning_rate: np.ndarray
    last: np.ndarray
    warmup: np.ndarray
    decay: np.ndarray
    dropout: np.ndarray | None
    first_share: np.ndarray
    epochs: np.ndarray
    epoch_steps: np.ndarray

    def rate(self, step: jax.Array) -> jax.Array:
        """The learning rate, float32, shape=()."""
        step = jnp.asarray(step, jnp.float32)
        share = jnp.clip((step - self.warmup) / self.decay, 0, 1)
        falling = (1 - self.last) * (0.5 * (1 + jnp.cos(jnp.pi * share))) + self.last
        growing = step / jnp.maximum(self.warmup, 1)
        return self.learning_rate * jnp.where(step < self.warmup, growing, falling)

    def drop_rates(self, step: jax.Array) -> jax.Array | None:
        """The sites' drop rates, shape (L,); None for no dropout."""
        if self.dropout is None:
            return None
        epoch = jnp.asarray(step // self.epoch_steps, jnp.float32)
        return self.dropout * ((self.first_share + epoch) / self.epochs)


def make_schedule(recipe: Recipe, epoch_steps: int, sites: int) -> Schedule:
    """Of a training of `epoch_steps` steps an epoch of a network of so many sites."""
    warmup = round(recipe.warmup_epochs * epoch_steps)
    depth = np.arange(1, sites + 1) / sites if recipe.dropout_by_depth else np.ones(sites)
    grows = recipe.dropout_by_epoch
    return Schedule(
        learning_rate=np.float32(recipe.learning_rate),
        last=np.float32(recipe.end_learning_rate / recipe.learning_rate),
        warmup=np.float32(warmup),
        decay=np.float32(recipe.epochs * epoch_steps - warmup),
        dropout=np.float32(recipe.dropout * depth) if recipe.dropout else None,
        first_share=np.float32(0 if grows else 1),
        epochs=np.float32(recipe.epochs if grows else 1),
        epoch_steps=np.int32(epoch_steps if grows else _MOST_STEPS),
    )


def make_optimizer(recipe: Recipe) -> optax.GradientTransformationExtraArgs:
    """SGD as in PyTorch: the decay is added to the gradient, before the momentum.

    Its `update` takes the training's `schedule`.
    """
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.chain(optax.trace(recipe.momentum, recipe.nesterov), _scale_by_rate()),
    )


def _scale_by_rate() -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, schedule: Schedule, **_):
        rate = schedule.rate(state.count)
        updates = jax.tree.map(lambda x: -rate * x, updates)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init, update)
