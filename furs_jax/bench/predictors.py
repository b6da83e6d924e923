"""What might predict the truth (see `bench.truth`): every estimator, on the unchanged network."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.costs.macs import Macs
from furs_jax.data.batches import training_batch
from furs_jax.errors import ConfigError
from furs_jax.furs.measure import Reread, make_task_estimate, search_batches
from furs_jax.furs.steps import gate_gradients
from furs_jax.objectives import Variables
from furs_jax.run.context import Run, derived_seed
from furs_jax.training.step import module_rngs
from furs_jax.training.train import train
from furs_jax.training.trainer import Task, Trainer, make_trainer
from furs_jax.widths.inherit import free_axes, inherit

NEW_CHANNELS = 4  # at least, that the score of gaining channels tries
RATES = (0.05, 0.2, 0.4)  # base drop rates
DRAWS = 10
BATCHES = 20  # to estimate BatchNorm's statistics anew from

Estimates = dict[str, np.ndarray]  # estimator -> what it says of every site, shape (L,)


def predictions(run: Run, seeds: Iterable[int]) -> list[Estimates]:
    """Of the task's network, trained with each seed by config.train; trainings are resumed."""
    measure = functools.cache(functools.partial(_make_measure, run))
    return [_estimates(run, seed, measure) for seed in seeds]


def _make_measure(run: Run, options: tuple[tuple[str, Any], ...]) -> Callable:
    """(variables, seed) -> FURs of the original network, by config.furs with `options`."""
    changes_ = {"method": "dropout", "metric": "loss", "draws": DRAWS, **dict(options)}
    net, furs = run.task.net, run.options.furs
    estimate = make_task_estimate(run.task, furs, net.channels, **changes_)
    batches = search_batches(run.task, furs)
    return lambda variables, seed: estimate(variables, batches, 0, seed).furs


def _estimates(run: Run, seed: int, measure: Callable) -> Estimates:
    """Every estimator on the original network, trained with one seed, with and without dropout."""
    task = run.task
    found: Estimates = {}
    try:
        grows = bool(free_axes(task.net))
    except ConfigError:  # new channels would not come in front, as `gain` takes them to
        grows = False
    for suffix, changes_ in (("", {}), (", trained without dropout", {"dropout": 0.0})):
        recipe = dataclasses.replace(run.options.train, **changes_)
        trainer = make_trainer(task, task.net.channels, recipe, task.dataset.train)
        kept = run.workdir.checkpoints / f"truth_{'plain' if suffix else 'dropout'}_{seed}"
        variables = train(trainer, derived_seed(run.options.seed, 1, seed), kept)[0].variables
        again = _statistics_anew(trainer, variables, seed)
        for name, trained, options in (
            *((f"dropout, loss, rate {p}", variables, {"base_drop_rate": p}) for p in RATES),
            (
                "dropout, accuracy, rate 0.2",
                variables,
                {"base_drop_rate": 0.2, "metric": "accuracy"},
            ),
            ("fisher", variables, {"method": "fisher"}),
            ("dropout, loss, rate 0.2, BatchNorm anew", again, {"base_drop_rate": 0.2}),
        ):
            found[name + suffix] = measure(tuple(options.items()))(trained, seed)
        if grows:
            batches = search_batches(task, run.options.furs)
            found[f"gain of new channels{suffix}"] = gain(task, trainer, variables, batches, seed)
    found["MACs (fewer is better)"] = -Macs(task.net).marginals(task.net.channels)
    return found


def _statistics_anew(trainer: Trainer, variables: Variables, seed: int) -> Variables:
    """BatchNorm's statistics from training batches without dropout, and from nothing else."""
    task, recipe = trainer.task, trainer.recipe
    module = task.net.module(task.net.channels, dtype=task.dtype)

    @jax.jit
    def update(statistics, images):
        _, changed_ = module.apply(
            {**variables, "batch_stats": statistics},
            task.preprocess(images),
            train=True,
            mutable=["batch_stats"],
            rngs=module_rngs(jax.random.key(seed)),
        )
        return changed_.get("batch_stats", {})

    # Running averages keep a share of what they begin with; begun with 0 and 1 they tell which.
    trained = variables.get("batch_stats", {})  # none where there is no BatchNorm
    low, high = jax.tree.map(jnp.zeros_like, trained), jax.tree.map(jnp.ones_like, trained)
    for step in range(BATCHES):
        images = training_batch(trainer.split, seed, step, recipe.batch_size)["image"]
        low, high = update(low, images), update(high, images)
    anew = jax.tree.map(lambda a, b: a / (1 - (b - a)), low, high)
    return {**variables, "batch_stats": anew}


def gain(
    task: Task, trainer: Trainer, variables: Variables, batches: Reread, seed: int
) -> np.ndarray:
    """How much the loss would fall at first by training new channels, per MAC, shape (L,).

    Every site gets at least `NEW_CHANNELS` channels with random weights and hardly any output; the
    score is the squared gradient of the mean loss by their gates, per channel and MAC.
    """
    channels, multiple = task.net.channels, task.net.multiple
    new = -(-NEW_CHANNELS // multiple) * multiple
    wider = [c + new for c in channels]
    fresh = make_trainer(task, wider, trainer.recipe, trainer.split).init(seed)
    old = fresh.replace(**variables)
    state = inherit(old, fresh, [np.arange(c) for c in channels], {})
    apply = task.apply(wider)

    @jax.jit
    def gradients(variables, batch):
        found, _ = gate_gradients(apply, variables, batch["image"], wider, lambda _: batch["label"])
        weight = batch["weight"][:, None]  # 0 for images that only fill up the batch
        return [jnp.sum(weight * g[:, 0, 0, :new], axis=0) for g in found]

    total = None
    for batch in batches:
        part = gradients(state.variables, batch)
        total = part if total is None else jax.tree.map(np.add, total, part)
    squared = [float(np.mean(np.square(site))) for site in total]
    return np.array(squared) / Macs(task.net).marginals(channels)
