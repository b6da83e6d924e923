"""Trainings of changed networks, for benchmarks that learn from their search loss."""

from collections.abc import Sequence

from furs_jax.machine.programs import release_programs
from furs_jax.run.context import Run, derived_seed
from furs_jax.run.journal import Journal
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import Recipe
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer


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
