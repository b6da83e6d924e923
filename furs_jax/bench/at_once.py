"""Trainings at once against one after the other, in the program's speed.

python -m furs_jax.bench at_once --config=configs/fashion.py:resnet14_14px --workdir=DIR

That, with --config.cpu_devices=1, measured on a CPU of 2 cores beside other work: three at once
0.75 times as fast; :mnasnet with --config.data.pool=2 --config.train.batch_size=32: 0.45. Each is
computed as wide as the widest, and XLA on a CPU takes grouped convolutions slowly. On GPU and TPU:
not measured.
"""

import itertools
import pathlib
import statistics
from typing import NamedTuple

import jax

from furs_jax.bench.throughput import SECONDS, by_device, shares, train_rate
from furs_jax.data.batches import Seed, training_batch
from furs_jax.jobs.prepare import prepare
from furs_jax.machine.sealed import write_json
from furs_jax.methods._whole_vectors import first_vectors
from furs_jax.options.schema import Options
from furs_jax.run.tables import format_table
from furs_jax.training.stacked import make_stacked_trainer
from furs_jax.training.trainer import Trainer, make_trainer

_TURNS = 3


class StackRate(NamedTuple):
    """images/s of training, of all networks together; compiling is left out."""

    networks: int
    at_once: float
    alone: float  # one after the other


def bench(options: Options, workdir: str) -> StackRate:
    """Times a step of the first networks that method "response" trains, both ways in turn."""
    prepared = prepare(options)
    task, split, recipe = prepared.task, prepared.task.dataset.train, prepared.options.train
    vectors = first_vectors(options, prepared)
    each = [make_trainer(task, vector, recipe, split) for vector in vectors]
    stack, seeds = make_stacked_trainer(task, vectors, recipe, split), tuple(range(len(vectors)))
    turns: list[tuple[float, float]] = []
    for _ in range(_TURNS):
        at_once = len(vectors) * _steps(stack, seeds)
        turns.append((at_once, statistics.harmonic_mean([_steps(own, 0) for own in each])))
    rates = [statistics.median(way) * recipe.batch_size for way in zip(*turns, strict=True)]
    rate = StackRate(len(vectors), *rates)
    _report(rate, stack, pathlib.Path(workdir).expanduser())
    return rate


def _steps(trainer: Trainer, seed: Seed) -> float:
    """Per second, the batch on the device."""
    batch = training_batch(trainer.split, seed, 0, trainer.recipe.batch_size)
    resident = jax.device_put(shares(trainer, batch), by_device(trainer.task))
    return train_rate(trainer, itertools.repeat(resident), SECONDS / _TURNS, seed)


def _report(rate: StackRate, trainer: Trainer, folder: pathlib.Path) -> None:
    task = trainer.task
    rows = [
        (f"{rate.networks} networks at once", f"{rate.at_once:,.1f} images/s"),
        ("one after the other", f"{rate.alone:,.1f} images/s"),
        ("at once", f"{rate.at_once / rate.alone:.2f} times as fast"),
    ]
    print(format_table(("training", "measured"), rows))
    print(
        f"{task.net.name}, batches of {trainer.recipe.batch_size} images of {task.dataset.name}, "
        f"{task.dtype}, {len(task.devices)} x {task.devices[0].device_kind}; median of {_TURNS}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench_at_once.json", rate._asdict())
