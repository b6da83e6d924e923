"""The rounds: train, measure FURs, reallocate (Chen et al., CVPR 2020, algorithm 1)."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_collections
import numpy as np

from furs_jax import hosts
from furs_jax.checkpoint import Checkpoints
from furs_jax.data import AnySplit
from furs_jax.data.batches import steps_per_epoch
from furs_jax.furs import sure, what_draws_bought
from furs_jax.inherit import channel_importance, free_axes, inherit, least_important_first
from furs_jax.measure import make_task_estimate, search_batches
from furs_jax.networks import Network
from furs_jax.options import AUTO
from furs_jax.prepare import first_recipe, recipe_of, warm_recipe
from furs_jax.reallocate import choose_sites, directed, reallocate
from furs_jax.recipe import Recipe
from furs_jax.run import Record, Run, derived_seed, from_weights, train_phase
from furs_jax.runtime import release_programs
from furs_jax.step import Batch
from furs_jax.train import Trainer, make_evaluator, make_trainer

# FURs while training look at one image for so many that are trained on.
_MONITOR_SHARE = 40
_RECORDED = (
    "furs",
    "furs_stderr",
    "loss_increase",
    "loss_increase_stderr",
    "accuracy_drop",
    "accuracy_drop_stderr",
    "drop_rates",
    "draws",
    "spread",
)


def run_rounds(run: Run) -> tuple[int, ...]:
    """All rounds, those already done read from the journal; returns the searched vector."""
    options = run.config.search
    records = run.workdir.rounds.read()
    for record in records:
        run.console.round(record, options.rounds)
    images = len(search_batches(run.task, run.config.furs).split.labels)
    while len(records) < options.rounds and not (
        options.stop_when_equal and _equal(records, images)
    ):
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
            f"{sure(len(run.start), images):.1f} are needed"
        )
    return selected(records, options.select)


def selected(records: list[Record], select: str) -> tuple[int, ...]:
    """The searched vector: the one after the last round, or the best one that was trained."""
    return tuple(_best(records)["channels"] if select == "best" else records[-1]["next_channels"])


def _equal(records: list[Record], images: int) -> bool:
    """Whether the last round's FURs, measured on so many images, differ at no two sites."""
    return bool(records) and records[-1]["spread"] < sure(len(records[-1]["furs"]), images)


def _best(records: list[Record]) -> Record:
    return min(records, key=lambda record: record["search_loss"])


def parent_and_scale(records: list[Record], patience: int) -> tuple[Record, float]:
    """The round whose network is changed next, and the factor of the step.

    It is the last one, until `patience` rounds in a row were no better than the best; then it is
    the best one again, with half the step. A patience of 0 never goes back.
    """
    last, best = records[-1], _best(records)
    scale = last["step_scale"]
    first = min(r["round"] for r in records if r["step_scale"] == scale)  # since going back
    if patience and last["round"] - max(best["round"], first - 1) >= patience:
        return best, scale / 2
    return last, scale


def _round(run: Run, records: list[Record]) -> Record:
    """Trains the next network, measures its FURs and chooses the vector after it."""
    config, net, dataset = run.config, run.task.net, run.task.dataset
    index = len(records)
    parent = records[-1] if records else None
    channels = parent["next_channels"] if parent else run.start
    compiled = run.clock.seconds
    title = f"round {index + 1}/{config.search.rounds}"
    phase, monitor = _phase(index), _monitor(run, channels)
    images = search_batches(run.task, config.furs)
    trainer = _trainer(run, channels, records, images)
    compiled_before = run.clock.seconds
    variables, trained = train_phase(run, trainer, phase, title, (1, index), monitor)
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
    record = {
        "round": index,
        "channels": list(channels),
        "macs": net.macs(channels),
        "params": net.params(channels),
        "train_macs": training_macs(net, channels, trainer.recipe, trainer.split),
        "train_loss": trained["loss"],
        "search_loss": search["loss"],
        "search_accuracy": search["top1"],
        **{field: _known(getattr(estimate, field)) for field in _RECORDED},
        "step_scale": parent["next_step_scale"] if parent else 1.0,
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


def _trainer(
    run: Run, channels: Sequence[int], records: list[Record], images: Iterable[Batch]
) -> Trainer:
    """Of a round: from scratch, or after the first one from the parent's weights."""
    config, split = run.config, run.task.dataset.train
    if not records:
        recipe = first_recipe(config, config.train)
        return from_weights(run, make_trainer(run.task, channels, recipe, split))
    recipe = recipe_of(config.train)
    if not config.search.warm_start:
        return make_trainer(run.task, channels, recipe, split)
    parent = records[-1]["next_parent"]
    old_channels = records[parent]["channels"]
    with Checkpoints(run.workdir.checkpoints / _phase(parent)) as checkpoints:
        old = checkpoints.restore(make_trainer(run.task, old_channels, recipe, split).abstract())
    axes = free_axes(run.task.net)
    importance = channel_importance(
        run.task.apply(old_channels), old_channels, old.variables, images, run.task.devices
    )
    order = least_important_first(importance, axes, old_channels, channels)
    trainer = make_trainer(run.task, channels, warm_recipe(config), split)
    return trainer._replace(init=lambda seed: inherit(old, trainer.init(seed), order, axes))


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


def _known(values: np.ndarray | float) -> Any:
    """As JSON holds it; None where the method doesn't tell."""
    return None if np.all(np.isnan(values)) else np.asarray(values).tolist()


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
