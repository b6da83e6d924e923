"""One training of a run, journalled and resumable, and what it begins with."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from furs_jax.data.batches import Seed
from furs_jax.errors import DivergedError
from furs_jax.machine import hosts
from furs_jax.machine.profile import traced
from furs_jax.options.schema import Options, Recipe
from furs_jax.run.console import Progress
from furs_jax.run.context import Run, derived_seed
from furs_jax.training.checkpoint import Checkpoints, latest_step
from furs_jax.training.loading import load_network
from furs_jax.training.step import TrainState
from furs_jax.training.train import train
from furs_jax.training.trainer import Trainer

Record = dict[str, Any]

_PROFILED = ("round_00", "final_trained_0")  # the first training of modes "search" and "train"


def train_phase(
    run: Run,
    trainer: Trainer,
    phase: str,
    title: str,
    seed: tuple[int, int],
    monitor: Callable[[int, Any], Record] = lambda epoch, variables: {},
    after_epoch: Callable[[TrainState, int], TrainState] = lambda state, epoch: state,
) -> tuple[TrainState, Record]:
    """One training of the run, journalled under `phase` and resumed where it stopped.

    `monitor` and `after_epoch` are as of `train`.
    """
    own_seed = derived_seed(run.options.seed, *seed)

    def lines(record: Record) -> list[Record]:
        return [{"phase": phase, **record}]

    return journalled(run, trainer, phase, title, own_seed, lines, monitor, after_epoch)


def journalled(
    run: Run,
    trainer: Trainer,
    name: str,
    title: str,
    seed: Seed,
    lines: Callable[[Record], list[Record]],
    monitor: Callable[[int, Any], Record] = lambda epoch, variables: {},
    after_epoch: Callable[[TrainState, int], TrainState] = lambda state, epoch: state,
) -> tuple[TrainState, Record]:
    """As `train_phase`; `lines` makes those of the metrics' journal of an epoch's record."""
    journal, first = run.workdir.metrics, True

    def on_epoch(progress: Progress, record: Record) -> None:
        nonlocal first
        told = lines(record)
        if first:  # drop what an interrupted process wrote beyond its last checkpoint
            phases = {line["phase"] for line in told}
            journal.keep(lambda r: r["phase"] not in phases or r["epoch"] < record["epoch"])
            first = False
        for line in told:
            journal.append(line)
        progress.epoch({**record, "loss": statistics.fmean(line["loss"] for line in told)})

    folder = run.workdir.checkpoints / name
    try:
        profile = run.options.profile if name.startswith(_PROFILED) else None
        with (
            run.console.progress(title, trainer.steps, trainer.recipe.epochs) as progress,
            traced(profile, progress.step) as on_step,
        ):
            return train(
                trainer,
                seed,
                folder,
                run.options.checkpoint_seconds,
                functools.partial(on_epoch, progress),
                on_step,
                monitor,
                run.stop,
                after_epoch,
            )
    except DivergedError as error:
        step = hosts.from_first(lambda: latest_step(folder))
        kept = "There is no checkpoint of it"
        if step is not None:
            way_on = "" if trainer.vectors else f": init_from={folder} begins with that"
            kept = f"Its state after step {step} is finite{way_on}"
        raise DivergedError(
            f"{title}: {error}, in another --workdir, as this run's options stay. {kept}"
        ) from error


def compile_first(run: Run, trainer: Trainer, phase: str, title: str) -> None:
    """Compiles the step of a training that isn't done, while initial weights' program is, too.

    With several hosts it is left for the first step, like all that might be compiled ahead. What
    the training doesn't begin with is left for later, beside the training: few cores are shared.
    """
    if hosts.count() == 1 and not is_trained(run, phase, trainer.recipe.epochs):
        waiting = run.console.waiting(f"{title}, compiling{run.console.ahead()}")
        with waiting, run.clock.ahead(trainer.compile_init):
            trainer.compile()


def is_trained(run: Run, phase: str, epochs: int) -> bool:
    """Whether the state at the end of a training is there; a damaged one may have been deleted."""
    with Checkpoints(run.workdir.checkpoints / phase, read_only=True) as checkpoints:
        record = checkpoints.record()
    return record is not None and record.get("epoch") == epochs


def from_weights(run: Run, trainer: Trainer) -> Trainer:
    """The trainer, starting from the weights of `init_from` where that is given."""
    options = run.options
    if options.init_from is None:
        return trainer
    net, data = run.task.net, run.task.dataset.name
    _, variables = load_network(options.init_from, net, "init_from", data, options.init_head)

    def init(seed: int) -> TrainState:
        state = trainer.init(seed)
        return state.replace(
            **{
                name: unflatten_dict(flatten_dict(getattr(state, name)) | flatten_dict(given))
                for name, given in variables.items()
            }
        )

    return trainer._replace(init=init)


def first_recipe(options: Options, recipe: Recipe) -> Recipe:
    """Of a training that begins with the weights of `init_from` where that is given."""
    return recipe.from_weights() if options.init_from else recipe
