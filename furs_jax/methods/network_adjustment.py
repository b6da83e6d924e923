"""The rounds: train, measure FURs, reallocate (Chen et al., CVPR 2020, algorithm 1)."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_collections

from furs_jax.data import AnySplit
from furs_jax.data.batches import steps_per_epoch
from furs_jax.furs.importance import channel_importance
from furs_jax.furs.measure import make_task_estimate, search_batches
from furs_jax.furs.significance import sure, what_draws_bought
from furs_jax.jobs.prepare import first_recipe, recipe_of, warm_recipe
from furs_jax.machine import hosts
from furs_jax.machine.programs import release_programs
from furs_jax.networks import Network
from furs_jax.options.schema import AUTO
from furs_jax.run.lines import PER_SITE, best_round, selected
from furs_jax.run.phases import Record, Run, derived_seed, from_weights, is_trained, train_phase
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.recipe import Recipe
from furs_jax.training.step import Batch, TrainState
from furs_jax.training.train import Trainer, make_evaluator, make_trainer
from furs_jax.widths.inherit import free_axes, inherit, least_important_first
from furs_jax.widths.reallocate import choose_sites, directed, reallocate

# FURs while training look at one image for so many that are trained on.
_MONITOR_SHARE = 40
_RECORDED = (*PER_SITE, "draws", "spread")


def run_rounds(run: Run) -> tuple[int, ...]:
    """All rounds, those already done read from the journal; returns the searched vector."""
    options = run.config.search
    records = run.workdir.rounds.read()
    for record in records:
        run.console.round(record, options.rounds)
    while not is_complete(run, records):
        record = _round(run, records)
        hosts.agree("the next channel vector", [record["next_channels"], record["next_parent"]])
        run.workdir.rounds.append(record)
        run.console.round(record, options.rounds)
        records.append(record)
        release_programs()
    if len(records) < options.rounds:
        run.console.print(
            f"stopped after {len(records)} rounds: no two sites' FURs differ by more than "
            f"{records[-1]['spread']:.1f} standard errors, and "
            f"{sure(len(run.start), _searched_images(run)):.1f} are needed"
        )
    return selected(records, options.select)


def is_complete(run: Run, records: list[Record]) -> bool:
    """Whether no round is left to do."""
    options = run.config.search
    if len(records) >= options.rounds:
        return True
    return options.stop_when_equal and _equal(records, _searched_images(run))


def _searched_images(run: Run) -> int:
    """How many FURs are measured on."""
    return len(search_batches(run.task, run.config.furs).split.labels)


def check_rounds(run: Run, records: list[Record]) -> None:
    """Whether each line of the journal follows from those before it.

    Raises:
      DamagedError: one doesn't.
    """
    for index, stored in enumerate(records):
        try:
            if index >= run.config.search.rounds:
                raise ValueError(f"a search of {run.config.search.rounds} rounds has no such one")
            for name in ("train_loss", "search_loss", "search_accuracy", "seconds"):
                if name not in stored:
                    raise ValueError(f"it has no {name}")
            _compare(stored, _given(run, records[:index]))
            _compare(stored, _next(run, records[: index + 1]))
        except (ValueError, KeyError, TypeError) as error:
            raise run.workdir.rounds.damaged(index + 1, str(error)) from error


def _compare(stored: Record, expected: Record) -> None:
    for name, value in expected.items():
        if stored.get(name) != value:
            raise ValueError(
                f"{name} is {stored.get(name)}, and {value} follows from the config and the lines "
                "before"
            )


def _equal(records: list[Record], images: int) -> bool:
    """Whether the last round's FURs, measured on so many images, differ at no two sites."""
    return bool(records) and records[-1]["spread"] < sure(len(records[-1]["furs"]), images)


def parent_and_scale(records: list[Record], patience: int) -> tuple[Record, float]:
    """The round whose network is changed next, and the factor of the step.

    It is the last one, until `patience` rounds in a row were no better than the best; then it is
    the best one again, with half the step. A patience of 0 never goes back.
    """
    last, best = records[-1], best_round(records)
    scale = last["step_scale"]
    first = min(r["round"] for r in records if r["step_scale"] == scale)  # since going back
    if patience and last["round"] - max(best["round"], first - 1) >= patience:
        return best, scale / 2
    return last, scale


def _round(run: Run, records: list[Record]) -> Record:
    """Trains the next network, measures its FURs and chooses the vector after it."""
    config, dataset = run.config, run.task.dataset
    index, given = len(records), _given(run, records)
    channels = tuple(given["channels"])
    compiled = run.clock.seconds
    images = search_batches(run.task, config.furs)
    trainer = _trainer(run, channels, records, images)
    compiled_before = run.clock.seconds
    variables, trained = _train(run, trainer, index)
    start, compiled_training = time.monotonic(), run.clock.seconds
    search = make_evaluator(run.task, channels)(variables, dataset.search)
    estimate = make_task_estimate(run.task, config.furs, channels)(
        variables,
        images,
        layers_in_round(config.reallocate, index),
        derived_seed(config.seed, 2, index),
    )
    finished = time.monotonic()
    if config.furs.draws == AUTO and (bought := what_draws_bought(estimate, config.furs.max_draws)):
        run.console.print(f"FURs: {bought}")
    compile_furs = run.clock.seconds - compiled_training
    measured = estimate.as_json()
    record = {
        **given,
        "train_loss": trained["loss"],
        "search_loss": search["loss"],
        "search_accuracy": search["top1"],
        **{field: measured[field] for field in _RECORDED},
    }
    return {
        **record,
        **_next(run, [*records, record]),
        "seconds": {
            "train": round(trained["seconds"] - (compiled_training - compiled_before), 3),
            "furs": round(finished - start - compile_furs, 3),
            "compile": round(run.clock.seconds - compiled, 3),
        },
    }


def _given(run: Run, records: list[Record]) -> Record:
    """What the rounds before tell of the next one's line."""
    net, index = run.task.net, len(records)
    parent = records[-1] if records else None
    channels = tuple(parent["next_channels"]) if parent else run.start
    return {
        "round": index,
        "channels": list(channels),
        "macs": net.macs(channels),
        "params": net.params(channels),
        "train_macs": training_macs(
            net, channels, _recipe(run.config, index), run.task.dataset.train
        ),
        "step_scale": parent["next_step_scale"] if parent else 1.0,
    }


def _recipe(config: ml_collections.ConfigDict, index: int) -> Recipe:
    """Of the training of a round."""
    if index == 0:
        return first_recipe(config, config.train)
    return warm_recipe(config) if config.search.warm_start else recipe_of(config.train)


def _train(run: Run, trainer: Trainer, index: int) -> tuple[Any, Record]:
    title = f"round {index + 1}/{run.config.search.rounds}"
    monitor = _monitor(run, trainer.channels)
    return train_phase(run, trainer, _phase(index), title, (1, index), monitor)


def _trainer(
    run: Run, channels: Sequence[int], records: list[Record], images: Iterable[Batch]
) -> Trainer:
    """Of a round: from scratch, or after the first one from the parent's weights."""
    recipe, split = _recipe(run.config, len(records)), run.task.dataset.train
    if not records:
        return from_weights(run, make_trainer(run.task, channels, recipe, split))
    if not run.config.search.warm_start:
        return make_trainer(run.task, channels, recipe, split)
    parent = records[-1]["next_parent"]
    old_channels, old = records[parent]["channels"], _end_state(run, records, parent, images)
    axes = free_axes(run.task.net)
    importance = channel_importance(
        run.task.apply(old_channels), old_channels, old.variables, images, run.task.devices
    )
    order = least_important_first(importance, axes, old_channels, channels)
    trainer = make_trainer(run.task, channels, recipe, split)
    return trainer._replace(init=lambda seed: inherit(old, trainer.init(seed), order, axes))


def _end_state(run: Run, records: list[Record], index: int, images: Iterable[Batch]) -> TrainState:
    """Of the training of a round that is done; trained again where it has been deleted."""
    channels, recipe = records[index]["channels"], _recipe(run.config, index)
    if not is_trained(run, _phase(index), recipe.epochs):
        _train(run, _trainer(run, channels, records[:index], images), index)
    with Checkpoints(run.workdir.checkpoints / _phase(index), read_only=True) as checkpoints:
        trainer = make_trainer(run.task, channels, recipe, run.task.dataset.train)
        return checkpoints.restore(trainer.abstract())


def training_macs(net: Network, channels: Sequence[int], recipe: Recipe, split: AnySplit) -> int:
    """MACs of a training; a backward pass counts as two forward ones."""
    steps = recipe.epochs * steps_per_epoch(split, recipe.batch_size)
    return 3 * net.macs(channels) * recipe.batch_size * steps


def _phase(index: int) -> str:
    return f"round_{index:02}"


def _next(run: Run, records: list[Record]) -> Record:
    """The next round's network, and which sites it is changed at."""
    options, index = run.config.reallocate, records[-1]["round"]
    parent, scale = parent_and_scale(records, run.config.search.patience)
    num_layers = layers_in_round(options, index)
    seed = derived_seed(run.config.seed, 4, index)
    ranks = directed(parent["furs"], options.direction, seed)
    increased, decreased = choose_sites(ranks, num_layers)
    following = reallocate(
        run.task.net,
        parent["channels"],
        ranks,
        initial=step_widths(run),
        budget=run.budget,
        num_layers=num_layers,
        step=options.step * scale,
        step_decay=options.step_decay * scale,
        min_channels=options.min_channels,
        channel_multiple=options.channel_multiple,
    )
    return {
        "increased": increased,
        "decreased": decreased,
        "next_channels": list(following),
        "next_macs": run.task.net.macs(following),
        "next_parent": parent["round"],
        "next_step_scale": scale,
    }


def step_widths(run: Run) -> tuple[int, ...]:
    """The vector that a round's steps are relative to."""
    return run.start if run.config.reallocate.step_from_start else run.task.net.channels


def layers_in_round(options: ml_collections.ConfigDict, index: int) -> int:
    """K_r = max(round(K - r * decay), 0), the sites changed each way in round r."""
    return max(round(options.num_layers - index * options.num_layers_decay), 0)


def _monitor(run: Run, channels: Sequence[int]) -> Callable[[int, Any], Record]:
    """Fisher FURs after every so many epochs of a round, for metrics.jsonl."""
    options = run.config.furs
    if not options.every_epochs:
        return lambda epoch, variables: {}
    estimate = make_task_estimate(run.task, options, channels, method="fisher", metric="loss")
    # A gradient of gates costs about as much as one of weights: few per cent of an epoch.
    most = max(len(run.task.dataset.train.labels) * options.every_epochs // _MONITOR_SHARE, 2)
    batches = search_batches(run.task, options, most)

    def monitor(epoch: int, variables: Any) -> Record:
        if epoch % options.every_epochs:
            return {}
        furs = estimate(variables, batches, 0, 0)
        return {"furs": furs.furs.tolist(), "furs_stderr": furs.furs_stderr.tolist()}

    return monitor
