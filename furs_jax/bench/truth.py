"""The utilisation ratio by brute force, and which estimator predicts it.

Equation 2 of Chen et al. (CVPR 2020) taken literally: every site is made a quarter wider and a
quarter narrower, the network is trained anew with several seeds, and the change of the search loss
is divided by that of the MACs. For networks small enough for 2 L S trainings.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy import stats

from furs_jax.data import training_batch
from furs_jax.fur_steps import gate_gradients
from furs_jax.furs import estimate_furs
from furs_jax.inherit import inherit
from furs_jax.prepare import Prepared, estimator_of, prepare, recipe_of
from furs_jax.report.tables import format_table
from furs_jax.resources import marginal_macs
from furs_jax.rounds import Reread, evenly_spread
from furs_jax.run import derived_seed
from furs_jax.step import Variables
from furs_jax.train import Task, Trainer, make_evaluator, make_trainer, train
from furs_jax.workdir import Journal, write_json

CHANGE = 0.25  # of a site's width
NEW_CHANNELS = 4  # that the score of gaining channels tries
BATCHES = 20  # to estimate BatchNorm's statistics anew from

Estimates = dict[str, np.ndarray]  # estimator -> what it says of every site, shape (L,)


def bench(config: Any, workdir: str) -> None:
    """Measures the truth and correlates every estimator with it; goes on where it stopped.

    Trainings use config.train, and config.final.seeds seeds. Prints a table and writes
    truth.jsonl (one line a training) and bench_truth.json.
    """
    prepared = prepare(config)
    folder = pathlib.Path(workdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "truth.jsonl")
    net, seeds = prepared.task.net, config.final.seeds
    for site, sign in changes(len(net.channels)):
        _retrain(config, prepared, site, sign, journal)
    ratios = truth(journal.read(), len(net.channels))
    found = [_estimates(config, prepared, seed, folder) for seed in range(seeds)]
    rows, record = [], {}
    for name in found[0]:
        each = np.stack([estimates[name] for estimates in found])
        mean = each.mean(axis=0)
        rank = stats.spearmanr(mean, ratios.mean(axis=0))
        single = [stats.spearmanr(one, ratios.mean(axis=0)).statistic for one in each]
        agree = _agreement(each)
        rows.append(
            (
                name,
                *(f"{x:.2f}" for x in (rank.statistic, rank.pvalue, np.mean(single))),
                f"{agree:.2f}",
            )
        )
        record[name] = {"each": each.tolist(), "spearman": rank.statistic, "p": rank.pvalue}
    agree = _agreement(ratios)
    rows.append(("the truth, seed by seed", "", "", "", f"{agree:.2f}"))
    header = ("estimator", "Spearman", "p", "one network", "between seeds")
    print(format_table(header, rows))
    print(_sites_table(net.site_names, ratios))
    print(
        f"{net.name}, {len(net.channels)} sites, {prepared.task.dataset.name}; truth: search loss "
        f"of networks with one site {CHANGE:.0%} wider and narrower, {seeds} seeds each. Spearman: "
        "of the mean over seeds with the mean truth; one network: of a single one, mean; between "
        "seeds: mean Spearman of two seeds, the most that noise leaves to see"
    )
    record = {"truth": ratios.tolist(), "channels": list(net.channels), "estimators": record}
    write_json(folder / "bench_truth.json", record)


def changes(sites: int) -> list[tuple[int, int]]:
    """(site, sign) of every changed network."""
    return [(site, sign) for site in range(sites) for sign in (1, -1)]


def changed(channels: Sequence[int], site: int, sign: int) -> tuple[int, ...]:
    """The vector with one site a quarter (at least one channel) wider or narrower."""
    step = max(round(CHANGE * channels[site]), 1)
    return tuple(c + sign * step * (place == site) for place, c in enumerate(channels))


def truth(records: list[dict[str, Any]], sites: int) -> np.ndarray:
    """Utilisation ratios (loss per MAC), shape (seeds, L), from the journal's records."""
    seeds = 1 + max(record["seed"] for record in records)
    loss, macs = np.zeros((2, seeds, sites)), np.zeros((2, seeds, sites))
    for record in records:
        place = (int(record["sign"] > 0), record["seed"], record["site"])
        loss[place], macs[place] = record["search_loss"], record["macs"]
    return (loss[0] - loss[1]) / (macs[1] - macs[0])


def _retrain(config: Any, prepared: Prepared, site: int, sign: int, journal: Journal) -> None:
    """Trains one changed network with the seeds that are still to do."""
    task = prepared.task
    done = {(r["site"], r["sign"], r["seed"]) for r in journal.read()}
    seeds = [s for s in range(config.final.seeds) if (site, sign, s) not in done]
    if not seeds:
        return
    channels = changed(task.net.channels, site, sign)
    trainer = make_trainer(task, channels, recipe_of(config.train), task.dataset.train)
    evaluate = make_evaluator(task, channels)
    for seed in seeds:
        variables, _ = train(trainer, derived_seed(config.seed, 1, seed))
        loss = evaluate(variables, task.dataset.search)["loss"]
        macs = task.net.macs(channels)
        journal.append(
            {"site": site, "sign": sign, "seed": seed, "search_loss": loss, "macs": macs}
        )
        print(f"site {site} {'wider' if sign > 0 else 'narrower'}, seed {seed}: {loss:.4f}")


def _estimates(config: Any, prepared: Prepared, seed: int, folder: pathlib.Path) -> Estimates:
    """Every estimator on the original network, trained with one seed, with and without dropout."""
    task = prepared.task
    split = evenly_spread(task.dataset.search, config.furs.images)
    batches = Reread(split, config.furs.batch_size)
    found: Estimates = {}
    for suffix, changes_ in (("", {}), (", trained without dropout", {"dropout": 0.0})):
        recipe = dataclasses.replace(recipe_of(config.train), **changes_)
        trainer = make_trainer(task, task.net.channels, recipe, task.dataset.train)
        kept = folder / "checkpoints" / f"truth_{'plain' if suffix else 'dropout'}_{seed}"
        variables, _ = train(trainer, derived_seed(config.seed, 1, seed), kept)

        def furs(seed=seed, trained=variables, **options: Any) -> np.ndarray:
            return estimate_furs(
                task.net, task.net.channels, trained, batches, seed=seed,
                preprocess=task.preprocess, dtype=task.dtype, devices=task.devices,
                **{**estimator_of(config.furs)._asdict(), "method": "dropout", **options},
            ).furs  # fmt: skip

        for rate in (0.05, 0.2, 0.4):
            found[f"dropout, loss, rate {rate}{suffix}"] = furs(base_drop_rate=rate, draws=10)
        found[f"dropout, accuracy, rate 0.2{suffix}"] = furs(
            base_drop_rate=0.2, draws=10, metric="accuracy"
        )
        found[f"fisher{suffix}"] = furs(method="fisher")
        again = _statistics_anew(trainer, variables, seed)
        found[f"dropout, loss, rate 0.2, BatchNorm anew{suffix}"] = furs(
            trained=again, base_drop_rate=0.2, draws=10
        )
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
    module = task.net.module(wider, dtype=task.dtype)

    @jax.jit
    def gradients(variables, images, labels):
        def apply(variables, images, gates):
            return module.apply(variables, task.preprocess(images), gates)

        found, _ = gate_gradients(apply, variables, images, wider, lambda _: labels)
        return [g[:, 0, 0, :NEW_CHANNELS].sum(axis=0) for g in found]

    total = None
    for batch in batches:
        part = gradients(state.variables, batch["image"], batch["label"])
        total = part if total is None else jax.tree.map(np.add, total, part)
    squared = [float(np.mean(np.square(site))) for site in total]
    return np.array(squared) / marginal_macs(task.net.macs, channels)


def _agreement(each: np.ndarray) -> float:
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
