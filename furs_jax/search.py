"""The rounds: train, measure FURs, reallocate; then compare original and searched. Resumable.

Chen et al., CVPR 2020, algorithm 1.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from furs_jax import furs as furs_lib
from furs_jax.data import AnySplit, evaluation_batches
from furs_jax.errors import DivergedError
from furs_jax.prepare import final_split, prepare, recipe_of
from furs_jax.reallocate import choose_sites, reallocate
from furs_jax.report.console import Console
from furs_jax.report.statistics import difference_interval, mean_interval
from furs_jax.runtime import CompileClock, compile_clock
from furs_jax.train import Task, make_evaluator, make_trainer, train
from furs_jax.workdir import Workdir, read_json, write_json

Record = dict[str, Any]
SearchResult = Record  # as result.json: see README


class Run(NamedTuple):
    """A checked search, ready to compute."""

    config: ml_collections.ConfigDict
    task: Task
    budget: int  # MACs
    workdir: Workdir
    console: Console
    clock: CompileClock


def search(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, quiet: bool = False
) -> SearchResult:
    """Runs a search, or goes on with one, and returns what result.json holds.

    Args:
      config: all options, see configs/default.py.
      workdir: the run's folder. A folder of the same config is resumed.
      quiet: print nothing.

    Raises:
      FursError: an option, the data, the budget or the folder can't work, all found before any
        training; or the training diverged.
    """
    folder = Workdir(workdir, _as_json(config))
    console = Console(quiet)
    try:
        if folder.result.exists():
            result = read_json(folder.result)
            console.finished(folder, result)
            return result
        with compile_clock() as clock:
            task, budget = prepare(config)
            run = Run(config, task, budget, folder, console, clock)
            environment = _environment(task)
            console.header(folder, task, budget)
            if folder.start(_as_json(config), environment) != environment:
                console.moved(folder)
            result = _final(run, _rounds(run))
            write_json(folder.result, result)
            console.finished(folder, result)
            return result
    finally:
        folder.close()


def _rounds(run: Run) -> tuple[int, ...]:
    """All rounds, those already done read from the journal; returns the searched vector."""
    rounds = run.config.search.rounds
    records = run.workdir.rounds.read()
    for record in records:
        run.console.round(record, rounds)
    channels = records[-1]["next_channels"] if records else run.task.net.channels
    for index in range(len(records), rounds):
        record = _round(run, index, channels)
        run.workdir.rounds.append(record)
        run.console.round(record, rounds)
        records.append(record)
        channels = record["next_channels"]
    if run.config.search.select == "best":
        channels = min(records, key=lambda record: record["search_loss"])["channels"]
    return tuple(channels)


def _round(run: Run, index: int, channels: Sequence[int]) -> Record:
    """Trains the network of `channels`, measures its FURs and chooses the next vector."""
    config, net, dataset = run.config, run.task.net, run.task.dataset
    compiled = run.clock.seconds
    title = f"round {index + 1}/{config.search.rounds}"
    recipe = recipe_of(config.train)
    trainer = make_trainer(run.task, channels, recipe, dataset.train)
    variables, trained = _train(run, trainer, f"round_{index:02}", title, (1, index))
    start, compiled_training = time.monotonic(), run.clock.seconds
    search = make_evaluator(run.task, channels)(variables, dataset.search)
    estimate = _estimate(run, index, channels, variables)
    finished = time.monotonic()
    compile_furs = run.clock.seconds - compiled_training
    num_layers = layers_in_round(config.reallocate, index)
    increased, decreased = choose_sites(estimate.furs, num_layers)
    following = _reallocate(run, channels, estimate.furs, num_layers)
    return {
        "round": index,
        "channels": list(channels),
        "macs": net.macs(channels),
        "params": net.params(channels),
        "train_loss": trained["loss"],
        "search_loss": search["loss"],
        "search_accuracy": search["top1"],
        **{
            field: _known(getattr(estimate, field))
            for field in (
                "furs",
                "furs_stderr",
                "loss_increase",
                "loss_increase_stderr",
                "accuracy_drop",
                "accuracy_drop_stderr",
                "drop_rates",
            )
        },
        "increased": increased,
        "decreased": decreased,
        "next_channels": list(following),
        "next_macs": net.macs(following),
        "seconds": {
            "train": round(trained["seconds"] - (compiled_training - compiled), 3),
            "furs": round(finished - start - compile_furs, 3),
            "compile": round(run.clock.seconds - compiled, 3),
        },
    }


def _known(values: np.ndarray) -> list[float] | None:
    """As JSON holds it; None where the method doesn't tell."""
    return None if np.all(np.isnan(values)) else values.tolist()


def layers_in_round(options: ml_collections.ConfigDict, index: int) -> int:
    """K_r = max(round(K - r * decay), 0), the sites changed each way in round r."""
    return max(round(options.num_layers - index * options.num_layers_decay), 0)


def _estimate(run: Run, index: int, channels: Sequence[int], variables: Any) -> furs_lib.FURs:
    options, search = run.config.furs, run.task.dataset.search
    return furs_lib.estimate_furs(
        run.task.net,
        channels,
        variables,
        evaluation_batches(evenly_spread(search, options.images), options.batch_size),
        method=options.method,
        metric=options.metric,
        base_drop_rate=options.base_drop_rate,
        draws=options.draws,
        noise=options.noise,
        fisher_labels=options.fisher_labels,
        seed=derived_seed(run.config.seed, 2, index),
        preprocess=run.task.preprocess,
        dtype=run.task.dtype,
        devices=run.task.devices,
    )


def evenly_spread(split: AnySplit, count: int) -> AnySplit:
    """`count` images evenly spread over the split; all of it where count is 0 or too large."""
    total = len(split.labels)
    if not 0 < count < total:
        return split
    return split.take(np.arange(count) * total // count)


def _reallocate(
    run: Run, channels: Sequence[int], furs: np.ndarray, num_layers: int
) -> tuple[int, ...]:
    options = run.config.reallocate
    return reallocate(
        run.task.net,
        channels,
        furs,
        initial=run.task.net.channels,
        budget=run.budget,
        num_layers=num_layers,
        step=options.step,
        step_decay=options.step_decay,
        min_channels=options.min_channels,
        channel_multiple=options.channel_multiple,
    )


def _final(run: Run, searched: tuple[int, ...]) -> SearchResult:
    """Trains original and searched alike, from scratch, and reads the test split."""
    net, seeds = run.task.net, run.config.final.seeds
    networks = {"original": net.channels, "searched": searched}
    done = run.workdir.finals.read()
    result: SearchResult = {"budget": run.budget, "method": "network_adjustment"}
    for name, channels in networks.items():
        scores = [record for record in done if record["network"] == name]
        scores += _final_seeds(run, name, channels, range(len(scores), seeds))
        result[name] = {
            "channels": list(channels),
            "macs": net.macs(channels),
            "params": net.params(channels),
            "seeds": [{key: s[key] for key in ("seed", "top1", "top5", "loss")} for s in scores],
            **{key: mean_interval([s[key] for s in scores]) for key in ("top1", "top5")},
        }
    result["difference"] = {
        key: difference_interval(
            *([seed[key] for seed in result[name]["seeds"]] for name in ("searched", "original"))
        )
        for key in ("top1", "top5")
    }
    return json.loads(json.dumps(result))


def _final_seeds(run: Run, name: str, channels: Sequence[int], seeds: range) -> list[Record]:
    """Trains and tests one network with the seeds that are still to do."""
    if not seeds:
        return []
    config, records = run.config.final, []
    split = final_split(run.config, run.task.dataset)
    trainer = make_trainer(run.task, channels, recipe_of(config.train), split)
    evaluate = make_evaluator(run.task, channels)
    for seed in seeds:
        phase, title = f"final_{name}_{seed}", f"final {name} {seed + 1}/{config.seeds}"
        variables, _ = _train(run, trainer, phase, title, (3, seed))
        scores = evaluate(variables, run.task.dataset.test)
        records.append({"network": name, "seed": seed, **scores})
        run.workdir.finals.append(records[-1])
        run.console.final(title, scores)
    return records


def _train(run: Run, trainer, phase: str, title: str, seed: tuple[int, int]) -> tuple[Any, Record]:
    """One training of the run, journalled under `phase` and resumed where it stopped."""
    journal, first = run.workdir.metrics, True

    def on_epoch(record: Record) -> None:
        nonlocal first
        if first:  # drop what an interrupted process wrote beyond its last checkpoint
            journal.keep(lambda r: r["phase"] != phase or r["epoch"] < record["epoch"])
            first = False
        journal.append({"phase": phase, **record})

    folder = run.workdir.checkpoints / phase
    try:
        with run.console.progress(title, trainer) as on_step:
            return train(
                trainer,
                derived_seed(run.config.seed, *seed),
                folder,
                run.config.checkpoint_seconds,
                on_epoch,
                on_step,
            )
    except DivergedError as error:
        raise DivergedError(
            f"{title}: {error}. Checkpoints up to the last good one are kept in {folder}"
        ) from error


def derived_seed(seed: int, purpose: int, index: int) -> int:
    """An independent seed for one use: purpose 1 rounds, 2 FURs, 3 final trainings."""
    state = np.random.SeedSequence((seed, purpose, index)).generate_state(1)
    return int(state[0] >> 1)  # non-negative as int32


def _as_json(config: ml_collections.ConfigDict) -> Record:
    return json.loads(config.to_json_best_effort())


def _environment(task: Task) -> Record:
    """What besides the config may change a run's figures."""
    import flax
    import jaxlib
    import optax

    return {
        "versions": {m.__name__: m.__version__ for m in (jax, jaxlib, flax, optax, np)},
        "devices": [f"{device.platform}:{device.device_kind}" for device in task.devices],
    }
