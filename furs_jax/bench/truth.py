"""The utilisation ratio by brute force, and which estimator predicts it.

Equation 2 of Chen et al. (CVPR 2020) taken literally: every site is made a quarter wider and a
quarter narrower, the network is trained anew with several seeds, and the change of the search loss
is divided by that of the MACs. For networks small enough for 2 L S trainings.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from furs_jax.bench.retrain import retrain
from furs_jax.data import training_batch
from furs_jax.errors import ConfigError
from furs_jax.fur_steps import gate_gradients
from furs_jax.inherit import inherit
from furs_jax.measure import Reread, make_task_estimate, search_batches
from furs_jax.prepare import recipe_of
from furs_jax.report.tables import format_table
from furs_jax.resources import marginal_macs
from furs_jax.run import Run, derived_seed
from furs_jax.search import run_in_folder
from furs_jax.step import Variables
from furs_jax.train import Task, Trainer, make_trainer, train
from furs_jax.workdir import Journal

CHANGE = 0.25  # of a site's width
NEW_CHANNELS = 4  # that the score of gaining channels tries
RATES = (0.05, 0.2, 0.4)  # base drop rates
DRAWS = 10
BATCHES = 20  # to estimate BatchNorm's statistics anew from

Estimates = dict[str, np.ndarray]  # estimator -> what it says of every site, shape (L,)


def bench(config: Any, workdir: str) -> None:
    """Measures the truth and correlates every estimator with it; goes on where it stopped.

    Trainings use config.train, and config.final.seeds seeds. The folder is a run's: truth.jsonl
    has one line a training, result.json the outcome.

    Raises:
      ConfigError: a vector or weights are given.
      WorkdirError: the folder holds another config's trainings, or a search.
    """
    config = config.copy_and_resolve_references()
    if config.channels or config.channels_from or config.init_from:
        raise ConfigError(
            "the truth is measured of the original network; leave out channels, channels_from and "
            "init_from"
        )
    config.mode = "truth"  # a search in the same folder would be another run
    run_in_folder(config, workdir, _measure, _table)


def _measure(run: Run) -> dict[str, Any]:
    journal = Journal(run.workdir.path / "truth.jsonl")
    net, seeds = run.task.net, run.config.final.seeds
    for site, sign in changes(len(net.channels)):
        change = {"site": site, "sign": sign}
        channels = changed(net.channels, site, sign)
        retrain(run, change, channels, recipe_of(run.config.train), journal)
    measure = functools.cache(functools.partial(_make_measure, run))
    found = [_estimates(run, seed, measure) for seed in range(seeds)]
    return {
        "network": net.name,
        "sites": net.site_names,
        "data": run.task.dataset.name,
        "truth": truth(journal.read(), len(net.channels)).tolist(),
        "estimates": {name: [one[name].tolist() for one in found] for name in found[0]},
    }


def _table(result: dict[str, Any]) -> str:
    """Every estimator's correlation with the truth; then the truth of every site."""
    ratios = np.array(result["truth"])
    mean_truth = ratios.mean(axis=0)
    rows = []
    for name, each in result["estimates"].items():
        rank = stats.spearmanr(np.mean(each, axis=0), mean_truth)
        single = np.mean([stats.spearmanr(one, mean_truth).statistic for one in each])
        numbers = (rank.statistic, rank.pvalue, single, _agreement(each))
        rows.append((name, *(f"{x:.2f}" for x in numbers)))
    rows.append(("the truth, seed by seed", "", "", "", f"{_agreement(ratios):.2f}"))
    header = ("estimator", "Spearman", "p", "one network", "between seeds")
    return (
        f"{format_table(header, rows)}\n\n{_sites_table(result['sites'], ratios)}\n"
        f"{result['network']}, {ratios.shape[1]} sites, {result['data']}; truth: search loss of "
        f"networks with one site {CHANGE:.0%} wider and narrower, {len(ratios)} seeds each. "
        "Spearman: of the mean over seeds with the mean truth; one network: of a single one, mean; "
        "between seeds: mean Spearman of two seeds, the most that noise leaves to see"
    )


def changes(sites: int) -> list[tuple[int, int]]:
    """(site, sign) of every changed network."""
    return [(site, sign) for site in range(sites) for sign in (1, -1)]


def changed(channels: Sequence[int], site: int, sign: int) -> tuple[int, ...]:
    """The vector with one site a quarter (at least one channel) wider or narrower, never gone."""
    step = max(round(CHANGE * channels[site]), 1)
    return tuple(
        max(c + sign * step, 1) if place == site else c for place, c in enumerate(channels)
    )


def truth(records: list[dict[str, Any]], sites: int) -> np.ndarray:
    """Utilisation ratios (loss per MAC), shape (seeds, L), from the journal's records."""
    seeds = 1 + max(record["seed"] for record in records)
    loss, macs = np.zeros((2, seeds, sites)), np.zeros((2, seeds, sites))
    for record in records:
        place = (int(record["sign"] > 0), record["seed"], record["site"])
        loss[place], macs[place] = record["search_loss"], record["macs"]
    return (loss[0] - loss[1]) / (macs[1] - macs[0])


def _make_measure(run: Run, options: tuple[tuple[str, Any], ...]) -> Callable:
    """(variables, seed) -> FURs of the original network, by config.furs with `options`."""
    changes_ = {"method": "dropout", "draws": DRAWS, **dict(options)}
    net, furs = run.task.net, run.config.furs
    estimate = make_task_estimate(run.task, furs, net.channels, **changes_)
    batches = search_batches(run.task, furs)
    return lambda variables, seed: estimate(variables, batches, 0, seed).furs


def _estimates(run: Run, seed: int, measure: Callable) -> Estimates:
    """Every estimator on the original network, trained with one seed, with and without dropout."""
    task = run.task
    found: Estimates = {}
    for suffix, changes_ in (("", {}), (", trained without dropout", {"dropout": 0.0})):
        recipe = dataclasses.replace(recipe_of(run.config.train), **changes_)
        trainer = make_trainer(task, task.net.channels, recipe, task.dataset.train)
        kept = run.workdir.checkpoints / f"truth_{'plain' if suffix else 'dropout'}_{seed}"
        variables, _ = train(trainer, derived_seed(run.config.seed, 1, seed), kept)
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
        batches = search_batches(task, run.config.furs)
        found[f"gain of new channels{suffix}"] = gain(task, trainer, variables, batches, seed)
    found["MACs (fewer is better)"] = -marginal_macs(task.net.macs, task.net.channels)
    return found


def _statistics_anew(trainer: Trainer, variables: Variables, seed: int) -> Variables:
    """BatchNorm's statistics from training batches without dropout."""
    task, recipe = trainer.task, trainer.recipe
    module = task.net.module(task.net.channels, dtype=task.dtype)

    @jax.jit
    def update(variables, images):
        _, changed_ = module.apply(
            variables, task.preprocess(images), train=True, mutable=["batch_stats"]
        )
        return {**variables, **changed_}

    for step in range(BATCHES):
        batch = training_batch(trainer.split, seed, step, recipe.batch_size)
        variables = update(variables, batch["image"])
    return variables


def gain(
    task: Task, trainer: Trainer, variables: Variables, batches: Reread, seed: int
) -> np.ndarray:
    """How much the loss would fall at first by training new channels, per MAC, shape (L,).

    Every site gets `NEW_CHANNELS` channels with random weights and hardly any output; the score is
    the squared gradient of the mean loss by their gates, per channel and MAC.
    """
    channels = task.net.channels
    wider = [c + NEW_CHANNELS for c in channels]
    fresh = make_trainer(task, wider, trainer.recipe, trainer.split).init(seed)
    old = fresh.replace(**variables)
    state = inherit(old, fresh, [np.arange(c) for c in channels], {})
    apply = task.apply(wider)

    @jax.jit
    def gradients(variables, batch):
        found, _ = gate_gradients(apply, variables, batch["image"], wider, lambda _: batch["label"])
        weight = batch["weight"][:, None]  # 0 for images that only fill up the batch
        return [jnp.sum(weight * g[:, 0, 0, :NEW_CHANNELS], axis=0) for g in found]

    total = None
    for batch in batches:
        part = gradients(state.variables, batch)
        total = part if total is None else jax.tree.map(np.add, total, part)
    squared = [float(np.mean(np.square(site))) for site in total]
    return np.array(squared) / marginal_macs(task.net.macs, channels)


def _agreement(each: Sequence[Sequence[float]]) -> float:
    """Mean Spearman correlation of two rows; NaN where there is one."""
    pairs = [stats.spearmanr(a, b).statistic for i, a in enumerate(each) for b in each[i + 1 :]]
    return float(np.mean(pairs)) if pairs else float("nan")


def _sites_table(names: Sequence[str], ratios: np.ndarray) -> str:
    spread = stats.sem(ratios, axis=0) if len(ratios) > 1 else np.full(len(names), np.nan)
    rows = [
        (name, f"{1e9 * mean:.2f}", f"{1e9 * error:.2f}")
        for name, mean, error in zip(names, ratios.mean(axis=0), spread, strict=True)
    ]
    return format_table(("site", "loss per GMAC", "s.e. over seeds"), rows)
