"""Trainings of changed networks, for benchmarks that learn from their search loss."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from furs_jax.errors import ConfigError
from furs_jax.jobs.harness import run_in_folder
from furs_jax.machine.programs import release_programs
from furs_jax.options.schema import Options
from furs_jax.run.context import Run, derived_seed
from furs_jax.run.journal import Journal
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import Recipe
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer


def run_from_scratch(
    mode: str,
    options: Options,
    workdir: str,
    measure: Callable[[Run], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    seeds: int = 1,
) -> None:
    """Does a benchmark of trainings in a run's folder, as `run_in_folder`.

    Args:
      mode: the benchmark's; a search in the same folder would be another run.
      seeds: that it needs at least.

    Raises:
      ConfigError: fewer seeds, or weights are given.
    """
    if options.final.seeds < seeds:
        raise ConfigError(f"noise shows between seeds only; give final.seeds of at least {seeds}")
    if options.init_from:
        raise ConfigError(f"bench {mode} trains from scratch; leave out init_from")
    run_in_folder(dataclasses.replace(options, mode=mode), workdir, measure, table)


def check_sites(run: Run) -> None:
    """Raises ConfigError of a network of one site."""
    if len(run.task.net.channels) < 2:
        name = run.task.net.name
        raise ConfigError(f"{name} has one site only: there is no other to compare it with")


def retrain(
    run: Run,
    channels: Sequence[int],
    recipe: Recipe,
    journal: Journal,
    what: str,
    seeds: Sequence[int] | None = None,
) -> None:
    """Trains a network on the train split with every seed, by default config.final.seeds of them.

    Those that `journal` has a line of are left out. The lines have channels, seed, macs,
    search_loss and search_top1. `what` is printed of the network.
    """
    options, task = run.options, run.task
    done = {r["seed"] for r in journal.read() if r["channels"] == list(channels)}
    wanted = range(options.final.seeds) if seeds is None else seeds
    seeds = [seed for seed in wanted if seed not in done]
    if not seeds:
        return
    trainer = make_trainer(task, channels, recipe, task.dataset.train)
    evaluate = Evaluator(task, channels)
    for seed in seeds:
        state, _ = train(trainer, derived_seed(options.seed, 1, seed))
        found = evaluate(state.variables, task.dataset.search)
        scores = {"search_loss": found["loss"], "search_top1": found["top1"]}
        size = {"channels": list(channels), "macs": task.net.macs(channels)}
        journal.append({"seed": seed, **size, **scores})
        result = f"search loss {found['loss']:.4f}, top-1 {100 * found['top1']:.2f}%"
        run.console.print(f"{what}, seed {seed}: {result}")
    release_programs()
