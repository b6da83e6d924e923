"""How a network is trained: checks, learning rate and drop rates."""

import dataclasses
from collections.abc import Callable

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


def make_optimizer(recipe: Recipe, epoch_steps: int) -> optax.GradientTransformation:
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


def dropout_schedule(
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
