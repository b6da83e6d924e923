"""The training step's speed: python -m furs_jax.bench train --config=configs/x.py --workdir=DIR."""

import collections
import contextlib
import functools
import itertools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from furs_jax.data.batches import Batch, Seed, training_batches
from furs_jax.jobs.prepare import prepare
from furs_jax.machine import hosts
from furs_jax.machine.sealed import write_json
from furs_jax.objectives import Variables
from furs_jax.options.schema import ONE, TWO, Options
from furs_jax.run.tables import format_table
from furs_jax.training.step import AXIS, data_parallel, replicated, shard
from furs_jax.training.trainer import Task, Trainer, make_trainer, takes_two_programs

SECONDS = 5.0  # of each timing
_TURNS = 3
_IN_FLIGHT = 8
# MACs/s in bfloat16, dense, of what JAX calls a device: half of the FLOP/s in the makers' data
# sheets (cloud.google.com/tpu/docs, of a core for v2 and v3; nvidia.com, of SXM where not said).
PEAKS = {
    "TPU v2": 11.25e12,
    "TPU v3": 30.75e12,
    "TPU v4": 137.5e12,
    "TPU v5 lite": 98.5e12,
    "TPU v5": 229.5e12,
    "TPU v6 lite": 459e12,
    "NVIDIA A100": 156e12,
    "NVIDIA H100 PCIe": 378e12,
    "NVIDIA H100": 494.5e12,
    "NVIDIA H200": 494.5e12,
    "NVIDIA L4": 60.5e12,
}


class TrainRate(NamedTuple):
    """Of all devices together, but for the peak memory."""

    forward: float  # images/s of the forward pass as in evaluation, its batch on the device
    one: float  # images/s of the training step as one program, likewise
    two: float  # and as two, see `furs_jax.training.step.compiled`
    programs: str  # "one" or "two": which of them a run takes
    pipeline: float  # images/s of the input alone
    together: float  # images/s of training
    macs_per_second: float  # of the step; a backward pass counts as two forward ones
    share_of_peak: float | None  # None: the device's peak is not known
    peak_bytes: int | None  # of the first device's memory; None: it doesn't tell

    @property
    def step(self) -> float:
        """images/s of the step that a run takes."""
        return self.two if self.programs == TWO else self.one


def bench(options: Options, workdir: str) -> TrainRate:
    """Times the first round's training step alone, its input alone, and both together.

    The forward pass and both forms of the step take turns, so that other work on the machine meets
    all alike.
    """
    prepared = prepare(options)
    options = prepared.options
    task, channels = prepared.task, prepared.start
    split, batch_size = task.dataset.train, options.train.batch_size
    variants = {
        how: make_trainer(task._replace(step_programs=how), channels, options.train, split)
        for how in (ONE, TWO)
    }
    programs = TWO if takes_two_programs(task, channels, batch_size) else ONE
    trainer = variants[programs]
    place = hosts.index(), hosts.count()

    def batches() -> Iterator[Batch]:
        return training_batches(split, options.seed, range(2**31 - 1), batch_size, *place)

    with contextlib.closing(batches()) as some:
        resident = jax.device_put(shares(trainer, next(some)), by_device(task))
    turns: dict[str, list[float]] = {"forward": [], ONE: [], TWO: []}
    forward = _forward(trainer)
    for _ in range(_TURNS):
        turns["forward"].append(_rate(forward, itertools.repeat(resident), SECONDS / _TURNS))
        for how, variant in variants.items():
            rate = train_rate(variant, itertools.repeat(resident), SECONDS / _TURNS)
            turns[how].append(rate)
    alone = {name: statistics.median(rates) * batch_size for name, rates in turns.items()}
    with contextlib.closing(batches()) as some:
        pipeline = _consume(some) * batch_size
    with contextlib.closing(batches()) as some:
        together = train_rate(trainer, (shares(trainer, batch) for batch in some)) * batch_size
    macs = 3 * task.net.macs(channels) * alone[programs]
    memory = (task.devices[0].memory_stats() or {}).get("peak_bytes_in_use")
    rate = TrainRate(
        **alone,
        programs=programs,
        pipeline=pipeline,
        together=together,
        macs_per_second=macs,
        share_of_peak=_share(macs, task),
        peak_bytes=memory,
    )
    _report(rate, trainer, pathlib.Path(workdir).expanduser())
    return rate


def shares(trainer: Trainer, batch: Batch) -> Batch:
    batch.pop("damaged", None)
    return shard(batch, len(trainer.task.devices))


def by_device(task: Task) -> jax.sharding.Sharding:
    """As the step takes a batch, without moving it."""
    local = [device for device in task.devices if device.process_index == jax.process_index()]
    mesh = jax.sharding.Mesh(np.array(local), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))


def train_rate(
    trainer: Trainer, batches: Iterable[Batch], seconds: float | None = None, seed: Seed = 0
) -> float:
    """Steps per second."""
    state = replicated(trainer.start(seed), trainer.task.devices)

    def step(batch: Batch) -> jax.Array:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        return metrics["loss"]

    return _rate(step, batches, seconds)


def _forward(trainer: Trainer) -> Callable[[Batch], jax.Array]:
    """The network's forward pass in evaluation, its logits summed up."""
    task = trainer.task
    apply = task.apply(trainer.channels)

    def forward(variables: Variables, batch: Batch) -> jax.Array:
        return jax.lax.psum(apply(variables, batch["image"], None).sum(), AXIS)

    variables = replicated(trainer.start(0).variables, task.devices)
    return functools.partial(data_parallel(forward, task.devices), variables)


def _rate(
    step: Callable[[Batch], jax.Array], batches: Iterable[Batch], seconds: float | None = None
) -> float:
    """Calls per second, over `seconds` and the time of those in flight; the first is left out."""
    pending: collections.deque[jax.Array] = collections.deque()
    seconds = SECONDS if seconds is None else seconds
    start, done = 0.0, 0
    for number, batch in enumerate(batches):
        pending.append(step(batch))
        if len(pending) > _IN_FLIGHT or number == 0:
            jax.block_until_ready(pending.popleft())
            now = time.perf_counter()
            if number == 0:
                start = now  # compiled
                continue
            done += 1
            if now - start >= seconds:
                break
    jax.block_until_ready(pending)
    return (done + len(pending)) / (time.perf_counter() - start)


def _consume(batches: Iterator[Batch]) -> float:
    """Batches per second."""
    next(batches)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        next(batches)
        done += 1
    return done / (time.perf_counter() - start)


def _share(macs_per_second: float, task: Task) -> float | None:
    kind = task.devices[0].device_kind
    known = [peak for name, peak in PEAKS.items() if kind.startswith(name)]
    if not known or task.dtype != "bfloat16":
        return None
    return macs_per_second / len(task.devices) / known[0]


def in_words(rate: TrainRate) -> str:
    """What training waits for."""
    if rate.pipeline < rate.step:
        return (
            f"input-bound: the devices could train {rate.step / rate.pipeline:.1f} times as many "
            "images as the input gives; more data.workers or cores would help"
        )
    return (
        f"compute-bound: the input could give {rate.pipeline / rate.step:.1f} times as many images "
        "as the devices train"
    )


def _report(rate: TrainRate, trainer: Trainer, folder: pathlib.Path) -> None:
    task, size = trainer.task, trainer.recipe.batch_size
    share, memory = rate.share_of_peak, rate.peak_bytes
    rows = [
        ("forward, batch on the device", f"{rate.forward:,.1f} images/s"),
        ("step as one program", f"{rate.one:,.1f} images/s"),
        ("step as two programs", f"{rate.two:,.1f} images/s"),
        ("input alone", f"{rate.pipeline:,.1f} images/s"),
        ("both together", f"{rate.together:,.1f} images/s"),
        ("step", f"{rate.macs_per_second:.3g} MACs/s"),
        ("share of bfloat16 peak", "unknown" if share is None else f"{100 * share:.1f}%"),
        ("peak memory", "unknown" if memory is None else f"{memory / 2**30:.2f} GiB"),
    ]
    print(format_table(("training", "measured"), rows))
    programs = "one program" if rate.programs == ONE else "two programs"
    print(
        f"{in_words(rate)}\nA run takes the step as {programs}.\n"
        f"{task.net.name}, batches of {size} images of {task.dataset.name}, {task.dtype}, "
        f"{len(task.devices)} x {task.devices[0].device_kind}; {SECONDS:g} s each"
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "bench_train.json",
        {
            **rate._asdict(),
            "step": rate.step,
            "bound": in_words(rate).partition(":")[0],
            "batch_size": size,
            "dtype": task.dtype,
            "devices": [device.device_kind for device in task.devices],
        },
    )
