"""What follows from the lines of a search's rounds: the next one's network, recipe, line."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from furs_jax.methods._block_rounds import at_depths, block_moves
from furs_jax.options.schema import Options, ReallocateOptions, Recipe
from furs_jax.run.context import Run, derived_seed
from furs_jax.run.entries import size_text, training_macs
from furs_jax.run.lines import best_round, depths_text
from furs_jax.run.phases import first_recipe
from furs_jax.widths.reallocate import reallocate, still_sites
from furs_jax.widths.sites import choose_sites, directed

Record = dict[str, Any]


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
            _compare(stored, given_by(run, records[:index]))
            _compare(stored, next_network(run, records[: index + 1]))
        except (ValueError, KeyError, TypeError) as error:
            raise run.workdir.rounds.damaged(index + 1, str(error)) from error


def _compare(stored: Record, expected: Record) -> None:
    for name, value in expected.items():
        if stored.get(name) != value:
            raise ValueError(
                f"{name} is {stored.get(name)}, and {value} follows from the config and the lines "
                "before"
            )


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


def given_by(run: Run, records: list[Record]) -> Record:
    """What the rounds before tell of the next one's line."""
    index, parent = len(records), records[-1] if records else {}
    channels = tuple(parent.get("next_channels", run.start))
    run = at_depths(run, parent.get("next_depths"))
    net = run.task.net
    return {
        "round": index,
        "channels": list(channels),
        **({"depths": list(net.depths)} if run.options.search.blocks else {}),
        "macs": net.macs(channels),
        "params": net.params(channels),
        **run.cost.record(channels),
        "train_macs": training_macs(
            net, channels, recipe_of(run.options, index), run.task.dataset.train
        ),
        "step_scale": parent.get("next_step_scale", 1.0),
    }


def recipe_of(options: Options, index: int) -> Recipe:
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


def next_network(run: Run, records: list[Record]) -> Record:
    """The next round's network, and which sites it is changed at."""
    options, index = run.options.reallocate, records[-1]["round"]
    parent, scale = parent_and_scale(records, run.options.search.patience)
    num_layers, own = layers_in_round(options, index), at_depths(run, parent.get("depths"))
    moves = block_moves(own, records, parent) if run.options.search.blocks else {}
    seed = derived_seed(run.options.seed, 4, index)
    ranks = directed(parent["furs"], options.direction, seed)
    still = still_sites(own.bounds.min_channels, own.bounds.max_channels)
    increased, decreased = choose_sites(ranks, num_layers, still)
    following = reallocate(
        own.task.net,
        parent["channels"],
        ranks,
        initial=step_widths(own),
        budget=run.budget,
        num_layers=num_layers,
        step=options.step * scale,
        step_decay=options.step_decay * scale,
        cost=own.cost,
        **own.bounds._asdict(),
        depths=moves.get("next_depths"),
    )
    return {
        "increased": increased,
        "decreased": decreased,
        "next_channels": list(following),
        **moves,
        "next_macs": at_depths(run, moves.get("next_depths")).task.net.macs(following),
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
    changed = _signed(record["increased"], record["decreased"])
    blocks = ""
    if "next_depths" in record:
        moved = [[] if n is None else [n + 1] for n in (record["deeper"], record["shallower"])]
        depths = depths_text({"depths": record["next_depths"]})
        blocks = f"  blocks {depths} (stages {_signed(*moved) or 'unchanged'})"
    return (
        f"round {record['round'] + 1}/{rounds}  {size_text(record)}  "
        f"train loss {record['train_loss']:.4f}  search loss {record['search_loss']:.4f}  "
        f"search accuracy {100 * record['search_accuracy']:.2f}%\n"
        f"    sites {changed or 'unchanged'}{blocks}  "
        f"[train {seconds['train']:.0f}s, FURs {seconds['furs']:.0f}s, "
        f"compile {seconds['compile']:.0f}s{hidden}]"
    )


def _signed(more: Sequence[int], fewer: Sequence[int]) -> str:
    return " ".join(f"{s}{','.join(map(str, n))}" for s, n in (("+", more), ("-", fewer)) if n)
