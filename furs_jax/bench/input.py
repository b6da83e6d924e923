"""The input's speed: python -m furs_jax.bench input --config=configs/x.py --workdir=DIR."""

import contextlib
import dataclasses
import itertools
import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from furs_jax.data.batches import Batch, evaluation_batches, training_batches
from furs_jax.jobs.fitting import fit
from furs_jax.jobs.prepare import dataset_of
from furs_jax.machine.cores import usable_cores
from furs_jax.machine.sealed import write_json
from furs_jax.options.schema import Options
from furs_jax.run.tables import format_table

SECONDS = 5.0  # of each timing
REPEATS = 3


class InputRate(NamedTuple):
    """Of one kind of batches."""

    images_per_second: float  # median of REPEATS
    slowest: float
    fastest: float
    first_batch_seconds: float  # until the first batch, median


def bench(options: Options, workdir: str) -> None:
    """Times the reading of training and of search batches: images/s, without any network.

    The files have mostly been read before in a repeat, so that it tells what decoding allows; a
    slow disk shows in the first one.
    """
    dataset = dataset_of(options.data)
    options = fit(options, dataset)
    rates: dict[str, list[tuple[float, float]]] = {"training": [], "evaluation": []}
    for repeat in range(REPEATS):
        training = training_batches(
            dataset.train, repeat, range(2**31 - 1), options.train.batch_size
        )
        evaluation = _forever(dataset.search, options.eval_batch_size)
        for name, batches in zip(rates, (training, evaluation), strict=True):
            rates[name].append(_measure(batches))
    found = {name: _summary(pairs) for name, pairs in rates.items()}
    header = ("batches", *(field.replace("_", " ") for field in InputRate._fields))
    rows = [(name, *(f"{value:.4g}" for value in rate)) for name, rate in found.items()]
    print(format_table(header, rows))
    cores, data = usable_cores(), options.data
    print(
        f"{dataset.name}, {'x'.join(map(str, dataset.image_shape))}, training batches of "
        f"{options.train.batch_size}, {cores} cores, data.workers={data.workers}, "
        f"data.processes={data.processes}; median of {REPEATS} times {SECONDS:g} s"
    )
    folder = pathlib.Path(workdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    record = {name: rate._asdict() for name, rate in found.items()}
    write_json(
        folder / "bench_input.json", {**record, "cores": cores, "data": dataclasses.asdict(data)}
    )


def _forever(split: Any, batch_size: int) -> Iterator[Batch]:
    for _ in itertools.count():
        yield from evaluation_batches(split, batch_size)


def _measure(batches: Iterator[Batch]) -> tuple[float, float]:
    """Seconds until the first batch, and images per second after it."""
    with contextlib.closing(batches):
        begin = time.perf_counter()
        next(batches)
        start = now = time.perf_counter()
        images = 0
        while now - start < SECONDS:
            images += len(next(batches)["label"])
            now = time.perf_counter()
        return start - begin, images / (now - start)


def _summary(pairs: list[tuple[float, float]]) -> InputRate:
    first, rates = zip(*pairs, strict=True)
    return InputRate(statistics.median(rates), min(rates), max(rates), statistics.median(first))
