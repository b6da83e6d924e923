"""Several trainings of a run by one program, which leave what each alone would have left."""

import shutil
from collections.abc import Sequence
from typing import Any

from furs_jax.machine import hosts
from furs_jax.run.context import Run, derived_seed
from furs_jax.run.phases import compile_first, is_trained, journalled
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.loading import module_record
from furs_jax.training.stacked import Stack, StackEvaluator
from furs_jax.training.trainer import Trainer

Record = dict[str, Any]


def train_at_once(
    run: Run,
    trainer: Trainer,
    phases: Sequence[str],
    title: str,
    seeds: Sequence[tuple[int, int]],
) -> None:
    """Trainings by one program, each of which leaves what `train_phase` would have left.

    `train_phase` then takes each for finished. A record's seconds are its share of theirs, and it
    holds besides, as "search", the scores on the search split.

    Args:
      trainer: of several networks, of `make_stacked_trainer`.
      phases, seeds: of each of them.
    """
    epochs = trainer.recipe.epochs
    if all(is_trained(run, phase, epochs) for phase in phases):
        return
    name = f"{phases[0]}_to_{phases[-1]}"
    all_seeds = tuple(derived_seed(run.options.seed, *seed) for seed in seeds)

    def own(record: Record, number: int) -> Record:
        each = {key: x[number] if isinstance(x, list) else x for key, x in record.items()}
        return {**each, "seconds": round(record["seconds"] / len(phases), 3)}

    def lines(record: Record) -> list[Record]:
        return [{"phase": phase, **own(record, place)} for place, phase in enumerate(phases)]

    net, vectors, search = run.task.net, trainer.vectors, run.task.dataset.search
    stack, evaluate = Stack(net, vectors), StackEvaluator(run.task, vectors)
    shapes = trainer.abstract()
    compile_first(run, trainer, name, title)
    with run.clock.ahead(lambda: evaluate.compile((shapes.variables, shapes.widths), search)):
        state, record = journalled(run, trainer, name, title, all_seeds, lines)
    states = [stack.alone(state, number) for number in range(len(phases))]
    scores = evaluate([each.variables for each in states], search)
    for number, phase in enumerate(phases):
        if not is_trained(run, phase, epochs):
            content = {**own(record, number), "search": scores[number]}
            with Checkpoints(run.workdir.checkpoints / phase) as checkpoints:
                content |= module_record(net.of(vectors[number]))
                checkpoints.save(record["step"], states[number], content)
    if hosts.is_first():
        shutil.rmtree(run.workdir.checkpoints / name)
