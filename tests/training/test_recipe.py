"""What a recipe's fields do to the step: options that a search's result would not betray."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from furs_jax.machine import devices
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.training import trainer
from furs_jax.training.recipe import make_optimizer, make_schedule
from furs_jax.training.step import Extra, TrainState, data_parallel, make_train_step, shard
from furs_jax.training.trainer import make_trainer
from tests.training.test_step import RECIPE, random_split, random_task

PLAIN = dataclasses.replace(
    RECIPE, momentum=0.0, weight_decay=0.0, label_smoothing=0.0, dropout=0.0, crop_margin=0,
    flip=False,
)  # fmt: skip


def test_the_decay_is_of_every_parameter():
    params = {
        "conv": {"kernel": np.full((3, 3, 1, 2), 2, np.float32)},
        "bn": {"scale": np.ones(2, np.float32), "bias": np.full(2, 3, np.float32)},
    }
    optimizer = make_optimizer(dataclasses.replace(PLAIN, weight_decay=0.5))
    update = functools.partial(optimizer.update, schedule=make_schedule(PLAIN, 5, 1))
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = jax.jit(update)(zero, optimizer.init(params), params)
    for update, value in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(update, -0.1 * 0.5 * value)


def test_nesterov_looks_ahead():
    recipe = dataclasses.replace(PLAIN, momentum=0.9, epochs=1000)
    found = {}
    for nesterov in (False, True):
        optimizer = make_optimizer(dataclasses.replace(recipe, nesterov=nesterov))
        state, schedule = optimizer.init(np.float32(0)), make_schedule(recipe, 1000, 1)
        for _ in range(2):
            update, state = optimizer.update(np.float32(1), state, np.float32(0), schedule=schedule)
        found[nesterov] = -float(update) / 0.1
    assert found[False] == pytest.approx(1.9, rel=1e-3)
    assert found[True] == pytest.approx(1 + 0.9 * 1.9, rel=1e-3)


@pytest.mark.parametrize(
    ("by_epoch", "by_depth", "first", "last"),
    [
        (False, False, [0.2, 0.2], [0.2, 0.2]),
        (False, True, [0.1, 0.2], [0.1, 0.2]),
        (True, False, [0.0, 0.0], [0.15, 0.15]),
        (True, True, [0.0, 0.0], [0.075, 0.15]),
    ],
)
def test_drop_rates_grow_with_epoch_and_depth_as_asked(by_epoch, by_depth, first, last):
    recipe = dataclasses.replace(
        RECIPE, epochs=4, dropout=0.2, dropout_by_epoch=by_epoch, dropout_by_depth=by_depth
    )
    schedule = make_schedule(recipe, epoch_steps=5, sites=2)
    np.testing.assert_allclose(schedule.drop_rates(4), first, atol=1e-7)
    np.testing.assert_allclose(schedule.drop_rates(15), last, rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_the_learning_rate_is_optax_s(warmup):
    recipe = dataclasses.replace(RECIPE, epochs=9, warmup_epochs=warmup)
    begin, decay = int(5 * warmup), int(45 - 5 * warmup)
    expected = optax.join_schedules(
        [
            optax.linear_schedule(0.0, recipe.learning_rate, begin),
            optax.cosine_decay_schedule(
                recipe.learning_rate, decay, recipe.end_learning_rate / recipe.learning_rate
            ),
        ],
        [begin],
    )
    schedule = make_schedule(recipe, epoch_steps=5, sites=1)
    steps = np.arange(50, dtype=np.float32)
    np.testing.assert_allclose(schedule.rate(steps), expected(steps), rtol=1e-6, atol=1e-8)


def test_trainings_of_other_rates_and_lengths_share_a_program(tiny):
    batch = shard({"image": np.zeros((16, 8, 8, 1), np.uint8), "label": np.zeros(16, np.int32)}, 1)

    def program(images=48, **changes):
        recipe, split = dataclasses.replace(RECIPE, **changes), random_split(images)
        made = make_trainer(random_task(tiny, 1), tiny.channels, recipe, split)
        text = str(jax.make_jaxpr(made.step.run)(made.start(0), batch))
        return re.sub("0x[0-9a-f]+", "", text)

    own = program()
    other = {"epochs": 7, "learning_rate": 0.3, "end_learning_rate": 0.0, "warmup_epochs": 1.5}
    assert program(images=80, **other) == own
    assert program(dropout=0.5, dropout_by_epoch=True, dropout_by_depth=False) == own
    assert program(dropout=0.0) != own
    assert program(weight_decay=0.1) != own


class Linear(nn.Module):
    channels: tuple[int, ...] = (1,)

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        return nn.Dense(4)(images.mean(axis=(1, 2)))


def test_smoothing_takes_its_share_of_the_target():
    images, labels = np.random.default_rng(0).random((8, 2, 2, 3), np.float32), np.arange(8) % 4
    module, optimizer = Linear(), make_optimizer(PLAIN)
    variables = module.init(jax.random.key(0), images)
    params = variables["params"]
    state = TrainState(
        step=jnp.int32(0), seed=jnp.int32(0), params=params, batch_stats={},
        opt_state=optimizer.init(params), extra=Extra(None, make_schedule(PLAIN, 1, 1)),
    )  # fmt: skip
    step = make_train_step(
        module, optimizer, CrossEntropy(0.3), preprocess=lambda x: x, augmentation=(0, False)
    )
    batch = shard({"image": images, "label": labels.astype(np.int32)}, 1)
    _, metrics = data_parallel(step, jax.devices()[:1])(state, batch)
    log = np.asarray(jax.nn.log_softmax(module.apply(variables, images)))
    own = -log[np.arange(8), labels].mean()
    assert float(metrics["loss"]) == pytest.approx(0.7 * own - 0.3 * log.mean(), rel=1e-5)


def test_the_step_gets_what_the_recipe_says(tiny, monkeypatch):
    given = {}

    def observed(module, optimizer, objective, **options):
        given.update(options, module=module, objective=objective)
        return make_train_step(module, optimizer, objective, **options)

    monkeypatch.setattr(trainer, "make_train_step", observed)
    task, split = random_task(tiny, 1)._replace(dtype="bfloat16"), random_split(48)
    for margin, flip, share in ((3, False, 0.2), (0, True, 0.0)):
        recipe = dataclasses.replace(
            RECIPE, crop_margin=margin, flip=flip, label_smoothing=share, dropout=0.1
        )
        schedule = make_trainer(task, (4, 5, 6, 7), recipe, split).schedule
        assert given["augmentation"] == (margin, flip)
        assert given["objective"] == CrossEntropy(share)
        assert given["module"].dtype == "bfloat16"
        assert given["module"].channels == (4, 5, 6, 7)
        rates = schedule.drop_rates(0)
        np.testing.assert_allclose(rates, 0.1 * np.arange(1, 5) / 4, rtol=1e-6)


def test_auto_computes_in_bfloat16_but_on_a_cpu(monkeypatch):
    for backend, expected in (("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert devices.resolve_dtype("auto") == expected
        assert devices.resolve_dtype("float32") == "float32"
