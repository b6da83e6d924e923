"""The final comparison: original and searched trained alike, read once on the test split.

A search that begins with other widths than the original's has a third network, its start.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from furs_jax.jobs.vectors import final_split, teacher_network
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Method, load_method
from furs_jax.objectives import Objective
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.run.entries import compare_entry, training_macs
from furs_jax.run.folder import Files
from furs_jax.run.phases import first_recipe, from_weights, is_trained, train_phase
from furs_jax.run.statistics import difference_interval, mean_interval
from furs_jax.training.distill import ORIGINAL, Distillation, Teacher
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.loading import load_network
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer, make_trainer

Record = dict[str, Any]


def compare(run: Run, method: Method, searched: tuple[int, ...]) -> Record:
    """Trains original, start and searched alike, from scratch, and reads the test split."""
    net, options = run.task.net, run.options
    vectors = {ORIGINAL: net.channels, "start": run.start, "searched": searched}
    networks = {name: vectors[name] for name in compared(run)}
    result: Record = {"budget": run.budget, "method": options.method}
    for name, channels in networks.items():
        result[name] = train_seeds(run, name, channels, method if name == "searched" else Method())
    result.update(_differences(result))
    result["search_macs"] = _search_macs(run.workdir.rounds.read())
    split = final_split(options, run.task.dataset)
    result["final_macs"] = training_macs(net, searched, options.final.train, split)
    return result


def compared(run: Run) -> tuple[str, ...]:
    """The networks' names, in the order in which they are trained."""
    begun_elsewhere = run.start != run.task.net.channels
    return (ORIGINAL, "start", "searched") if begun_elsewhere else (ORIGINAL, "searched")


def check_finals(run: Run, names: Sequence[str]) -> None:
    """Whether the journal holds each network's seeds once and in order.

    Raises:
      DamagedError: it doesn't.
    """
    journal, seeds = run.workdir.finals, run.options.final.seeds
    expected = [(name, seed) for name in names for seed in range(seeds)]
    for place, record in enumerate(journal.read()):
        found = (record["network"], record["seed"])
        if found not in expected[place : place + 1]:
            name, seed = expected[place] if place < len(expected) else ("no other", "")
            raise journal.damaged(
                place + 1, f"it is of {found[0]} with seed {found[1]}, not {name} {seed}".rstrip()
            )


def check_result(files: Files, result: Record, options: Options) -> None:
    """Whether a result tells what the journals tell, as far as they do.

    Args:
      files: the run's.
      result: as in result.json.
      options: the run's.

    Raises:
      ValueError, LookupError, TypeError: it doesn't, or has not a result's form.
    """
    rounds, finals = files.rounds.read(), files.finals.read()
    for name in {ORIGINAL, "start", "searched", "trained"} & result.keys():
        scores = [record for record in finals if record["network"] == name]
        if not scores:
            raise ValueError(f"{files.finals.path.name} holds no training of {name}")
        compare_entry(result[name], _figures(scores), name)
    if "searched" not in result:
        return
    load_method(options.method).check_result(options, rounds, result)
    compare_entry(result, {"search_macs": _search_macs(rounds), **_differences(result)}, "")


def _search_macs(rounds: list[Record]) -> int:
    return sum(record.get("train_macs", 0) for record in rounds)


def _differences(result: Record) -> Record:
    """Of the searched network from those that it is compared with."""
    references = {"difference": ORIGINAL, "difference_from_start": "start"}
    return {
        key: _difference(result["searched"], result[name])
        for key, name in references.items()
        if name in result
    }


def _figures(scores: list[Record]) -> Record:
    """Each seed's figures and their means with intervals."""
    return {
        "seeds": [{key: s[key] for key in ("seed", "top1", "top5", "loss")} for s in scores],
        **{key: mean_interval([s[key] for s in scores]) for key in ("top1", "top5")},
    }


def _difference(network: Record, reference: Record) -> Record:
    return {
        key: difference_interval(
            *([seed[key] for seed in one["seeds"]] for one in (network, reference))
        )
        for key in ("top1", "top5")
    }


def train_seeds(
    run: Run, name: str, channels: Sequence[int], method: Method, init_from: bool = False
) -> Record:
    """Trains and tests one network with all seeds; those done before are read from the journal.

    Args:
      name: of the network, in the journal and in the folder of its checkpoints.
      channels: its vector.
      method: what may prune it.
      init_from: begin with the weights of `init_from`, where that is given.

    Returns:
      channels, macs, params, each seed's figures and their means with intervals.
    """
    options, net, test = run.options, run.task.net, run.task.dataset.test
    scores = [record for record in run.workdir.finals.read() if record["network"] == name]
    after_epoch = functools.partial(method.after_epoch, run)
    trainer, channels = None, tuple(channels)
    evaluators = {channels: Evaluator(run.task, channels)}
    ahead = [lambda: evaluators[channels].compile(trainer.abstract().variables, test)]
    for seed in range(len(scores), options.final.seeds):
        objective = objective_of(run, name, seed)
        if trainer is None:
            trainer = _trainer(run, channels, objective, init_from)
        trainer = trainer._replace(objective=objective)
        with run.clock.ahead(*ahead):
            state = _train(run, trainer, name, seed, after_epoch)
        ahead = []
        found, variables = method.finish(run, channels, state)
        if found not in evaluators:
            evaluators[found] = Evaluator(run.task, found)
        pruned = {} if found == channels else {"channels": list(found)}
        figures = evaluators[found](variables, test)
        scores.append({"network": name, "seed": seed, **pruned, **figures})
        run.workdir.finals.append(scores[-1])
        run.console.final(_title(run, name, seed), scores[-1])
    release_programs()
    channels = scores[-1].get("channels", channels)
    return {
        "channels": list(channels),
        "macs": net.macs(channels),
        "params": net.params(channels),
        **run.cost.record(channels),
        **_figures(scores),
    }


def _trainer(
    run: Run, channels: Sequence[int], objective: Objective, init_from: bool = False
) -> Trainer:
    options, split = run.options, final_split(run.options, run.task.dataset)
    recipe = options.final.train
    if not init_from:
        return make_trainer(run.task, channels, recipe, split, objective)
    recipe = first_recipe(options, recipe)
    return from_weights(run, make_trainer(run.task, channels, recipe, split, objective))


def _train(run: Run, trainer: Trainer, name: str, seed: int, after_epoch: Callable) -> TrainState:
    title, phase = _title(run, name, seed), final_phase(name, seed)
    return train_phase(run, trainer, phase, title, (3, seed), after_epoch=after_epoch)[0]


def _title(run: Run, name: str, seed: int) -> str:
    return f"final {name} {seed + 1}/{run.options.final.seeds}"


def final_phase(name: str, seed: int) -> str:
    return f"final_{name}_{seed}"


def objective_of(run: Run, name: str, seed: int) -> Objective:
    """Of a final training, as `config.kd` says; the run's own original is not taught."""
    recipe, kd = run.options.final.train, run.options.kd
    untaught = run.task.objective.of_recipe(recipe)
    if kd.teacher is None or kd.teacher == name == ORIGINAL:
        return untaught
    if kd.teacher == ORIGINAL:
        phase, net = final_phase(ORIGINAL, seed), run.task.net
        if not is_trained(run, phase, recipe.epochs):  # deleted since
            trainer = _trainer(run, net.channels, untaught)
            _train(run, trainer, ORIGINAL, seed, lambda state, epoch: state)
        path = run.workdir.checkpoints / phase
    else:
        path, net = kd.teacher, teacher_network(run.options, run.task.dataset)
    channels, variables = load_network(str(path), net, "kd.teacher")
    module = net.module(channels, dtype=run.task.dtype)
    teacher = Teacher(module, variables, kd.alpha, kd.temperature)
    return Distillation(recipe.label_smoothing, teacher)
