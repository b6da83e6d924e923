"""The final comparison: original and searched trained alike, read once on the test split.

A search that begins with other widths than the original's has a third network, its start.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from furs_jax.jobs.fitting import final_split
from furs_jax.jobs.forward_time import forward_times
from furs_jax.jobs.vectors import teacher_network
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Method, load_method
from furs_jax.networks.network import Network
from furs_jax.objectives import Objective
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.run.entries import compare_entry, training_macs, vector_entry
from furs_jax.run.folder import Files
from furs_jax.run.lines import final_phase, pruned_phase
from furs_jax.run.phases import compile_first, first_recipe, from_weights, is_trained, train_phase
from furs_jax.run.statistics import difference_interval, mean_interval
from furs_jax.training.checkpoint import latest_step
from furs_jax.training.distill import ORIGINAL, Distillation, Teacher
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.loading import load_network, recorded_network, save_network
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer, make_trainer

Record = dict[str, Any]

START, SEARCHED = "start", "searched"


class _Training(NamedTuple):
    """What `train_seeds` is given."""

    name: str
    channels: Sequence[int]
    method: Method = Method()
    init_from: bool = False


def compare(
    run: Run, method: Method, searched: tuple[int, ...], found: tuple[int, ...] | None = None
) -> Record:
    """Trains original, start and searched alike, from scratch, and reads the test split.

    Args:
      run: the run.
      method: what has found a vector.
      searched: the vector to compare.
      found: what the method has found, where that took longer than it may.
    """
    options = run.options
    vectors = {ORIGINAL: run.task.net.channels, START: run.start, SEARCHED: searched}
    result: Record = {"budget": run.budget, "method": options.method}
    if found not in (None, searched):
        result["found"] = vector_entry(run.task.net, run.cost, found)
    trainings = [
        _Training(name, vectors[name], *((method, method.prunes) if name == SEARCHED else ()))
        for name in compared(run, method)
    ]
    for training, following in itertools.zip_longest(trainings, trainings[1:]):
        result[training.name] = train_seeds(run, *training, following)
    result.update(_differences(result))
    rounds = run.workdir.rounds.read()
    result.update(_predicted(method, rounds))
    result["search_macs"] = _search_macs(rounds)
    split = final_split(options, run.task.dataset)
    net, recipe = method.network(run), options.final.train
    result["final_macs"] = training_macs(net, searched, recipe, split)
    result["seconds"] = _seconds(run.workdir)
    if options.final.timed:
        nets = {training.name: _tested(run, training, result) for training in trainings}
        with run.console.waiting("timing the networks"):
            measured = any(cost.is_measured for cost in run.cost.every())
            size = options.cost.batch_size if measured else None
            result["forward"] = forward_times(run.task, nets, size)
    return result


def _tested(run: Run, training: _Training, result: Record) -> Network:
    """A network as it was tested, which a method may have made smaller than it was trained."""
    net = training.method.network(run)
    pruned = run.workdir.checkpoints / pruned_phase(training.name, 0)
    if latest_step(pruned) is not None:
        net = recorded_network(str(pruned), net, "the trained network")
    return net.of(result[training.name]["channels"])


def compared(run: Run, method: Method) -> tuple[str, ...]:
    """The networks' names, in the order in which they are trained."""
    begun_elsewhere, stays = run.start != run.task.net.channels, method.stays(run)
    original = run.options.final.original and (begun_elsewhere or not stays)
    return (*[ORIGINAL] * original, *[START] * (begun_elsewhere and not stays), SEARCHED)


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
    for name in {ORIGINAL, START, SEARCHED, "trained"} & result.keys():
        scores = [record for record in finals if record["network"] == name]
        if not scores:
            raise ValueError(f"{files.finals.path.name} holds no training of {name}")
        size = {k: scores[0][k] for k in ("channels", "macs", "params") if k in scores[0]}
        compare_entry(result[name], {**size, **_figures(scores)}, name)
    if SEARCHED not in result:
        return
    method = load_method(options.method)
    found = result.get("found", result[SEARCHED])
    method.check_result(options, rounds, {**result, SEARCHED: found})
    told = {"search_macs": _search_macs(rounds), **_differences(result)}
    told.update(_predicted(method, rounds))
    if "seconds" in result:  # not of earlier versions
        told["seconds"] = _seconds(files)
    compare_entry(result, told, "")


def _seconds(files: Files) -> Record:
    """Wall time of the search, and of the searched network's training, mean over the seeds."""
    rounds = [record.get("seconds", {}) for record in files.rounds.read()]
    search = [s for parts in rounds for part, s in parts.items() if part != "compile_hidden"]
    epochs = {record["phase"]: record["seconds"] for record in files.metrics.read()}
    last = [epochs.get(final_phase(SEARCHED, record["seed"]), 0.0) for record in _finals(files)]
    return {"search": round(math.fsum(search), 3), "final": round(math.fsum(last) / len(last), 3)}


def _finals(files: Files, name: str = SEARCHED) -> list[Record]:
    return [record for record in files.finals.read() if record["network"] == name]


def _search_macs(rounds: list[Record]) -> int:
    return sum(record.get("train_macs", 0) for record in rounds)


def _differences(result: Record) -> Record:
    """Of the searched network from those that it is compared with."""
    references = {"difference": ORIGINAL, "difference_from_start": START}
    return {
        key: _difference(result[SEARCHED], result[name])
        for key, name in references.items()
        if name in result
    }


def _figures(scores: list[Record]) -> Record:
    """Each seed's figures and their means with intervals."""
    theoretical = [s["theoretical_macs"] for s in scores if "theoretical_macs" in s]
    return {
        **(
            {"theoretical_macs": round(math.fsum(theoretical) / len(scores))} if theoretical else {}
        ),
        "seeds": [{key: s[key] for key in ("seed", "top1", "top5", "loss")} for s in scores],
        **{key: mean_interval([s[key] for s in scores]) for key in ("top1", "top5")},
    }


def _predicted(method: Method, rounds: Sequence[Record]) -> Record:
    told = method.prediction(rounds)
    return {} if told is None else {"prediction": told}


def _difference(network: Record, reference: Record) -> Record:
    return {
        key: difference_interval(
            *([seed[key] for seed in one["seeds"]] for one in (network, reference))
        )
        for key in ("top1", "top5")
    }


def train_seeds(
    run: Run,
    name: str,
    channels: Sequence[int],
    method: Method,
    init_from: bool = False,
    following: _Training | None = None,
) -> Record:
    """Trains and tests one network with all seeds; those done before are read from the journal.

    Args:
      name: of the network, in the journal and in the folder of its checkpoints.
      channels: its vector.
      method: what may prune it.
      init_from: begin with the weights of `init_from`, where that is given.
      following: whose step is compiled meanwhile.

    Returns:
      channels, macs, params, of a network that is pruned those of the first seed; each seed's
      figures and their means with intervals.
    """
    options, test, scores = run.options, run.task.dataset.test, _finals(run.workdir, name)
    own = _with_network(run, method, channels)
    net = own.task.net
    after_epoch = functools.partial(method.after_epoch, own)
    evaluators, trainer = {net: Evaluator(own.task, net.channels)}, None
    ahead = [
        lambda: evaluators[net].compile(trainer.abstract().variables, test),
        lambda: following and _compile_into_cache(run, following),
    ]
    for seed in range(len(scores), options.final.seeds):
        objective = method.objective(own, objective_of(run, name, seed))
        if trainer is None:
            trainer = _trainer(own, net.channels, objective, init_from)
            trainer = trainer._replace(init=_then(trainer.init, after_epoch))
        trainer = trainer._replace(objective=objective)
        if ahead:
            compile_first(own, trainer, final_phase(name, seed), _title(run, name, seed))
        waiting = run.console.waiting(f"{_title(run, name, seed)}, compiling what comes next")
        with run.clock.ahead(*ahead, waiting=waiting):
            state = _train(own, trainer, name, seed, after_epoch)
        ahead = []
        found, variables, told = method.finish(own, net.channels, state)
        if found not in evaluators:
            evaluators[found] = Evaluator(own.task._replace(net=found), found.channels)
        pruned = {} if found == net else _size(run, found)
        if pruned:
            smaller = state.replace(**variables)
            save_network(run.workdir.checkpoints / pruned_phase(name, seed), found, smaller)
        figures = evaluators[found](variables, test)
        scores.append({"network": name, "seed": seed, **pruned, **(told or {}), **figures})
        run.workdir.finals.append(scores[-1])
        run.console.final(_title(run, name, seed), scores[-1])
    release_programs()
    size = _size(run, net)
    return {**{key: scores[0].get(key, value) for key, value in size.items()}, **_figures(scores)}


def _with_network(run: Run, method: Method, channels: Sequence[int]) -> Run:
    """The run of that one network which is trained in the end."""
    return run._replace(task=run.task._replace(net=method.network(run).of(channels)))


def _compile_into_cache(run: Run, training: _Training) -> None:
    """A step that will be found in JAX's cache on disk, where that is used."""
    if run.options.kd.teacher == ORIGINAL or jax.config.jax_compilation_cache_dir is None:
        return  # a teacher that may not be trained yet
    name, channels, method, init_from = training
    own = _with_network(run, method, channels)
    objective = method.objective(own, objective_of(run, name, 0))
    if not is_trained(run, final_phase(name, 0), run.options.final.train.epochs):
        _trainer(own, own.task.net.channels, objective, init_from).compile()


def _size(run: Run, net: Network) -> Record:
    """What a network's vector is and costs."""
    depths = {"depths": list(net.depths)} if run.options.tells_depths else {}
    return {**vector_entry(net, run.cost.on(net), net.channels), **depths}


def _then(init: Callable[[int], TrainState], after_epoch: Callable) -> Callable[[int], TrainState]:
    return lambda seed: after_epoch(init(seed), 0)


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
