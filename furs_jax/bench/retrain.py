"""Trainings of changed networks, for benchmarks that learn from their search loss."""

from collections.abc import Sequence

from furs_jax.machine.programs import release_programs
from furs_jax.run.folder import Journal
from furs_jax.run.phases import Run, derived_seed
from furs_jax.training.recipe import Recipe
from furs_jax.training.train import make_evaluator, make_trainer, train


def retrain(run: Run, channels: Sequence[int], recipe: Recipe, journal: Journal, what: str) -> None:
    """Trains a network on the train split with every one of config.final.seeds seeds.

    Those that `journal` has a line of are left out. The lines have channels, seed, macs,
    search_loss and search_top1. `what` is printed of the network.
    """
    config, task = run.config, run.task
    done = {r["seed"] for r in journal.read() if r["channels"] == list(channels)}
    seeds = [seed for seed in range(config.final.seeds) if seed not in done]
    if not seeds:
        return
    trainer = make_trainer(task, channels, recipe, task.dataset.train)
    evaluate = make_evaluator(task, channels)
    for seed in seeds:
        variables, _ = train(trainer, derived_seed(config.seed, 1, seed))
        found = evaluate(variables, task.dataset.search)
        scores = {"search_loss": found["loss"], "search_top1": found["top1"]}
        size = {"channels": list(channels), "macs": task.net.macs(channels)}
        journal.append({"seed": seed, **size, **scores})
        result = f"search loss {found['loss']:.4f}, top-1 {100 * found['top1']:.2f}%"
        run.console.print(f"{what}, seed {seed}: {result}")
    release_programs()
