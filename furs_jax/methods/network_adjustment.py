"""Network Adjustment (Chen et al., CVPR 2020, algorithm 1): train, measure FURs, reallocate."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

from furs_jax.furs.importance import channel_importance
from furs_jax.furs.measure import check_images, make_monitor, make_task_estimate, search_batches
from furs_jax.furs.significance import sure, what_draws_bought
from furs_jax.machine import hosts
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Method
from furs_jax.objectives import Batch
from furs_jax.options.schema import AUTO, Options, ReallocateOptions, Recipe
from furs_jax.run.context import Prepared, Run, derived_seed
from furs_jax.run.entries import compare_entry, size_text, training_macs
from furs_jax.run.lines import PER_SITE, best_round, round_phase, selected
from furs_jax.run.phases import (
    compile_first,
    first_recipe,
    from_weights,
    is_trained,
    train_phase,
)
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import check_recipe
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer, make_trainer
from furs_jax.widths.inherit import free_axes, inherit, least_important_first
from furs_jax.widths.reallocate import reallocate, still_sites
from furs_jax.widths.sites import choose_sites, directed

Record = dict[str, Any]

_RECORDED = (*PER_SITE, "draws", "spread")


class NetworkAdjustment(Method):
    """Rounds of training, measuring and moving channels; `reallocate.direction` makes controls."""

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.search.warm_start:
            check_recipe(warm_recipe(options), "search.warm", prepared.task.dataset.train)
            free_axes(prepared.task.net)  # refuses networks that can't inherit
        if options.mode == "search":
            check_images(options.furs, prepared.task.dataset.search)

    def search(self, run: Run) -> tuple[int, ...]:
        return run_rounds(run)

    def is_complete(self, run: Run) -> bool:
        return is_complete(run, run.workdir.rounds.read())

    def check_journal(self, run: Run) -> None:
        check_rounds(run, run.workdir.rounds.read())

    def check_result(self, options: Options, rounds: Sequence[Record], result: Record) -> None:
        begun = result.get("start", result["original"])
        for name, entry, expected in (
            ("the start", begun, {key: rounds[0][key] for key in ("channels", "macs", "params")}),
            (
                "searched",
                result["searched"],
                {"channels": list(selected(rounds, options.search.select))},
            ),
        ):
            compare_entry(entry, expected, name)


PLUGIN = NetworkAdjustment


def run_rounds(run: Run) -> tuple[int, ...]:
    """All rounds, those already done read from the journal; returns the searched vector."""
    options = run.options.search
    records = run.workdir.rounds.read()
    for record in records:
        run.console.print(round_line(record, options.rounds))
    while not is_complete(run, records):
        record = _round(run, records)
        hosts.agree("the next channel vector", [record["next_channels"], record["next_parent"]])
        run.workdir.rounds.append(record)
        run.console.print(round_line(record, options.rounds))
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
    options = run.options.search
    if len(records) >= options.rounds:
        return True
    return options.stop_when_equal and _equal(records, _searched_images(run))


def _searched_images(run: Run) -> int:
    """How many FURs are measured on."""
    return len(search_batches(run.task, run.options.furs).split.labels)


def check_rounds(run: Run, records: list[Record]) -> None:
    """Whether each line of the journal follows from those before it.

    Raises:
      DamagedError: one doesn't.
    """
    for index, stored in enumerate(records):
        try:
            if index >= run.options.search.rounds:
                raise ValueError(f"a search of {run.options.search.rounds} rounds has no such one")
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
    options, dataset = run.options, run.task.dataset
    index, given = len(records), _given(run, records)
    channels, title = tuple(given["channels"]), _title(run, index)
    compiled = run.clock.seconds
    images = search_batches(run.task, options.furs)
    trainer = _trainer(run, channels, records, images)
    evaluate = Evaluator(run.task, channels)
    estimate = make_task_estimate(run.task, options.furs, channels, cost=run.cost)
    hidden_before = run.clock.hidden

    def compile_ahead() -> None:
        variables = trainer.abstract().variables
        evaluate.compile(variables, dataset.search)
        estimate.compile(variables, images)

    compile_first(run, trainer, round_phase(index), title)
    waiting = run.console.waiting(f"{title}, compiling what measures it")
    with run.clock.ahead(compile_ahead, waiting=waiting):
        compiled_before = run.clock.seconds
        state, trained = _train(run, trainer, index)
        compiled_training = run.clock.seconds
    start, compiled_since = time.monotonic(), run.clock.seconds
    with run.console.waiting(f"{title}, measuring FURs{run.console.ahead()}"):
        search = evaluate(state.variables, dataset.search)
        found = estimate(
            state.variables,
            images,
            layers_in_round(options.reallocate, index),
            derived_seed(options.seed, 2, index),
        )
    finished = time.monotonic()
    if options.furs.draws == AUTO and (bought := what_draws_bought(found, options.furs.max_draws)):
        run.console.print(f"FURs: {bought}")
    compile_furs = run.clock.seconds - compiled_since
    measured = found.as_json()
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
            "compile_hidden": round(run.clock.hidden - hidden_before, 3),
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
        **run.cost.record(channels),
        "train_macs": training_macs(
            net, channels, _recipe(run.options, index), run.task.dataset.train
        ),
        "step_scale": parent["next_step_scale"] if parent else 1.0,
    }


def _recipe(options: Options, index: int) -> Recipe:
    """Of the training of a round."""
    if index == 0:
        return first_recipe(options, options.train)
    return warm_recipe(options) if options.search.warm_start else options.train


def warm_recipe(options: Options) -> Recipe:
    """Of the rounds that inherit weights."""
    return dataclasses.replace(
        options.train.from_weights(),
        epochs=options.search.warm_epochs,
        learning_rate=options.search.warm_learning_rate,
        warmup_epochs=0.0,
    )


def _train(run: Run, trainer: Trainer, index: int) -> tuple[TrainState, Record]:
    title = _title(run, index)
    monitor = make_monitor(run.task, run.options.furs, trainer.channels, run.cost)
    return train_phase(run, trainer, round_phase(index), title, (1, index), monitor)


def _title(run: Run, index: int) -> str:
    return f"round {index + 1}/{run.options.search.rounds}"


def _trainer(
    run: Run, channels: Sequence[int], records: list[Record], images: Iterable[Batch]
) -> Trainer:
    """Of a round: from scratch, or after the first one from the parent's weights."""
    recipe, split = _recipe(run.options, len(records)), run.task.dataset.train
    if not records:
        return from_weights(run, make_trainer(run.task, channels, recipe, split))
    if not run.options.search.warm_start:
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
    channels, recipe = records[index]["channels"], _recipe(run.options, index)
    if not is_trained(run, round_phase(index), recipe.epochs):
        _train(run, _trainer(run, channels, records[:index], images), index)
    with Checkpoints(run.workdir.checkpoints / round_phase(index), read_only=True) as checkpoints:
        trainer = make_trainer(run.task, channels, recipe, run.task.dataset.train)
        return checkpoints.restore(trainer.abstract())


def _next(run: Run, records: list[Record]) -> Record:
    """The next round's network, and which sites it is changed at."""
    options, index = run.options.reallocate, records[-1]["round"]
    parent, scale = parent_and_scale(records, run.options.search.patience)
    num_layers = layers_in_round(options, index)
    seed = derived_seed(run.options.seed, 4, index)
    ranks = directed(parent["furs"], options.direction, seed)
    still = still_sites(run.bounds.min_channels, run.bounds.max_channels)
    increased, decreased = choose_sites(ranks, num_layers, still)
    following = reallocate(
        run.task.net,
        parent["channels"],
        ranks,
        initial=step_widths(run),
        budget=run.budget,
        num_layers=num_layers,
        step=options.step * scale,
        step_decay=options.step_decay * scale,
        cost=run.cost,
        **run.bounds._asdict(),
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
    return run.start if run.options.reallocate.step_from_start else run.task.net.channels


def layers_in_round(options: ReallocateOptions, index: int) -> int:
    """K_r = max(round(K - r * decay), 0), the sites changed each way in round r."""
    return max(round(options.num_layers - index * options.num_layers_decay), 0)


def round_line(record: Record, rounds: int) -> str:
    """One round in two lines."""
    seconds = record["seconds"]
    aside = seconds.get("compile_hidden", 0)  # missing in lines of earlier versions
    hidden = f", {aside:.0f}s more meanwhile" if aside >= 0.5 else ""
    changed = " ".join(
        f"{sign}{','.join(map(str, sites))}"
        for sign, sites in (("+", record["increased"]), ("-", record["decreased"]))
        if sites
    )
    return (
        f"round {record['round'] + 1}/{rounds}  {size_text(record)}  "
        f"train loss {record['train_loss']:.4f}  search loss {record['search_loss']:.4f}  "
        f"search accuracy {100 * record['search_accuracy']:.2f}%\n"
        f"    sites {changed or 'unchanged'}  "
        f"[train {seconds['train']:.0f}s, FURs {seconds['furs']:.0f}s, "
        f"compile {seconds['compile']:.0f}s{hidden}]"
    )
