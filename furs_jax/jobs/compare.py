"""The final comparison: original and searched trained alike, read once on the test split.

A search that begins with other widths than the original's has a third network, its start.
"""

import math
from collections.abc import Sequence
from typing import Any

from furs_jax.jobs.prepare import final_split, first_recipe, recipe_of, teacher_network
from furs_jax.machine.programs import release_programs
from furs_jax.methods.network_adjustment import training_macs
from furs_jax.run.folder import Files
from furs_jax.run.lines import selected
from furs_jax.run.phases import Record, Run, from_weights, is_trained, train_phase
from furs_jax.run.statistics import difference_interval, mean_interval
from furs_jax.training.distill import ORIGINAL, Teacher
from furs_jax.training.loading import load_network
from furs_jax.training.step import Variables
from furs_jax.training.train import Trainer, make_evaluator, make_trainer


def compare(run: Run, searched: tuple[int, ...]) -> Record:
    """Trains original, start and searched alike, from scratch, and reads the test split."""
    net, config = run.task.net, run.config
    vectors = {ORIGINAL: net.channels, "start": run.start, "searched": searched}
    networks = {name: vectors[name] for name in compared(run)}
    result: Record = {"budget": run.budget, "method": "network_adjustment"}
    for name, channels in networks.items():
        result[name] = train_seeds(run, name, channels)
    result.update(_differences(result))
    result["search_macs"] = _search_macs(run.workdir.rounds.read())
    split = final_split(config, run.task.dataset)
    recipe = recipe_of(config.final.train)
    result["final_macs"] = training_macs(net, searched, recipe, split)
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
    journal, seeds = run.workdir.finals, run.config.final.seeds
    expected = [(name, seed) for name in names for seed in range(seeds)]
    for place, record in enumerate(journal.read()):
        found = (record["network"], record["seed"])
        if found not in expected[place : place + 1]:
            name, seed = expected[place] if place < len(expected) else ("no other", "")
            raise journal.damaged(
                place + 1, f"it is of {found[0]} with seed {found[1]}, not {name} {seed}".rstrip()
            )


def check_result(files: Files, result: Record, select: str) -> None:
    """Whether a result tells what the journals tell, as far as they do.

    Args:
      files: the run's.
      result: as in result.json.
      select: of config.search.

    Raises:
      ValueError, LookupError, TypeError: it doesn't, or has not a result's form.
    """
    rounds, finals = files.rounds.read(), files.finals.read()
    for name in {ORIGINAL, "start", "searched", "trained"} & result.keys():
        scores = [record for record in finals if record["network"] == name]
        if not scores:
            raise ValueError(f"{files.finals.path.name} holds no training of {name}")
        _compare(result[name], _figures(scores), name)
    if "searched" not in result:
        return
    begun = result.get("start", result[ORIGINAL])
    _compare(begun, {key: rounds[0][key] for key in ("channels", "macs", "params")}, "the start")
    _compare(result["searched"], {"channels": list(selected(rounds, select))}, "searched")
    _compare(result, {"search_macs": _search_macs(rounds), **_differences(result)}, "")


def _compare(found: Record, expected: Record, name: str) -> None:
    for key, value in expected.items():
        if not _same(found[key], value):
            raise ValueError(f"{name} {key} ".lstrip() + "is not what the journals tell")


def _same(found: Any, expected: Any) -> bool:
    """Equal, or floats that another version of SciPy may make of the same figures."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[k], expected[k]) for k in found)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)
    return found == expected


def _search_macs(rounds: list[Record]) -> int:
    return sum(record["train_macs"] for record in rounds)


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


def train_seeds(run: Run, name: str, channels: Sequence[int], init_from: bool = False) -> Record:
    """Trains and tests one network with all seeds; those done before are read from the journal.

    Args:
      name: of the network, in the journal and in the folder of its checkpoints.
      channels: its vector.
      init_from: begin with the weights of config.init_from, where that is given.

    Returns:
      channels, macs, params, each seed's figures and their means with intervals.
    """
    config, net = run.config.final, run.task.net
    scores = [record for record in run.workdir.finals.read() if record["network"] == name]
    evaluate = make_evaluator(run.task, channels)
    trainer = None
    for seed in range(len(scores), config.seeds):
        teacher = teacher_of(run, name, seed)
        if trainer is None:
            trainer = _trainer(run, channels, teacher, init_from)
        elif teacher is not None:
            trainer = trainer._replace(teacher=teacher.variables)
        variables = _train(run, trainer, name, seed)
        scores.append({"network": name, "seed": seed, **evaluate(variables, run.task.dataset.test)})
        run.workdir.finals.append(scores[-1])
        run.console.final(_title(run, name, seed), scores[-1])
    release_programs()
    return {
        "channels": list(channels),
        "macs": net.macs(channels),
        "params": net.params(channels),
        **_figures(scores),
    }


def _trainer(
    run: Run, channels: Sequence[int], teacher: Teacher | None, init_from: bool = False
) -> Trainer:
    config, split = run.config, final_split(run.config, run.task.dataset)
    if not init_from:
        return make_trainer(run.task, channels, recipe_of(config.final.train), split, teacher)
    recipe = first_recipe(config, config.final.train)
    return from_weights(run, make_trainer(run.task, channels, recipe, split, teacher))


def _train(run: Run, trainer: Trainer, name: str, seed: int) -> Variables:
    title = _title(run, name, seed)
    return train_phase(run, trainer, final_phase(name, seed), title, (3, seed))[0]


def _title(run: Run, name: str, seed: int) -> str:
    return f"final {name} {seed + 1}/{run.config.final.seeds}"


def final_phase(name: str, seed: int) -> str:
    return f"final_{name}_{seed}"


def teacher_of(run: Run, name: str, seed: int) -> Teacher | None:
    """Who teaches a final training, as `config.kd` says; the run's own original is not taught."""
    options = run.config.kd
    if options.teacher is None or (options.teacher == ORIGINAL and name == ORIGINAL):
        return None
    if options.teacher == ORIGINAL:
        phase, net = final_phase(ORIGINAL, seed), run.task.net
        if not is_trained(run, phase, run.config.final.train.epochs):  # deleted since
            _train(run, _trainer(run, net.channels, None), ORIGINAL, seed)
        path = run.workdir.checkpoints / phase
    else:
        path, net = options.teacher, teacher_network(run.config, run.task.dataset)
    channels, variables = load_network(str(path), net, "kd.teacher")
    module = net.module(channels, dtype=run.task.dtype)
    return Teacher(module, variables, options.alpha, options.temperature)
