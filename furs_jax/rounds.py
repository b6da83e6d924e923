"""The rounds: train, measure FURs, reallocate (Chen et al., CVPR 2020, algorithm 1)."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from furs_jax import furs as furs_lib
from furs_jax.data import Split, evaluation_batches
from furs_jax.prepare import estimator_of, recipe_of
from furs_jax.reallocate import choose_sites, reallocate
from furs_jax.run import Record, Run, derived_seed, train_phase
from furs_jax.step import Batch
from furs_jax.train import make_evaluator, make_trainer

# FURs while training look at one image for so many that are trained on.
_MONITOR_SHARE = 40


def run_rounds(run: Run) -> tuple[int, ...]:
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
    phase, monitor = f"round_{index:02}", _monitor(run, channels)
    variables, trained = train_phase(run, trainer, phase, title, (1, index), monitor)
    start, compiled_training = time.monotonic(), run.clock.seconds
    search = make_evaluator(run.task, channels)(variables, dataset.search)
    num_layers = layers_in_round(config.reallocate, index)
    images = Reread(evenly_spread(dataset.search, config.furs.images), config.furs.batch_size)
    estimate = _make_estimate(run, channels)(
        variables, images, num_layers, derived_seed(config.seed, 2, index)
    )
    finished = time.monotonic()
    compile_furs = run.clock.seconds - compiled_training
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
        "draws": estimate.draws,
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


def _make_estimate(run: Run, channels: Sequence[int], **changes: Any) -> Callable:
    """`make_estimate` with the run's options; its function reads the search split."""
    options = run.config.furs
    return furs_lib.make_estimate(
        run.task.net,
        channels,
        preprocess=run.task.preprocess,
        dtype=run.task.dtype,
        devices=run.task.devices,
        **{**estimator_of(options)._asdict(), **changes},
    )


def _monitor(run: Run, channels: Sequence[int]) -> Callable[[int, Any], Record]:
    """Fisher FURs after every so many epochs of a round, for metrics.jsonl."""
    options, dataset = run.config.furs, run.task.dataset
    if not options.every_epochs:
        return lambda epoch, variables: {}
    estimate = _make_estimate(run, channels, method="fisher", metric="loss")
    # A gradient of gates costs about as much as one of weights: few per cent of an epoch.
    most = max(len(dataset.train.labels) * options.every_epochs // _MONITOR_SHARE, 2)
    split = evenly_spread(dataset.search, min(options.images or most, most))

    def monitor(epoch: int, variables: Any) -> Record:
        if epoch % options.every_epochs:
            return {}
        furs = estimate(variables, Reread(split, options.batch_size), 0, 0)
        return {"furs": furs.furs.tolist(), "furs_stderr": furs.furs_stderr.tolist()}

    return monitor


@dataclasses.dataclass(frozen=True)
class Reread:
    """Evaluation batches of a split that can be read again and again."""

    split: Split
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        return iter(evaluation_batches(self.split, self.batch_size))


def evenly_spread(split: Split, count: int) -> Split:
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
