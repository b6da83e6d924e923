"""FURs of a run's networks, on the images and with the options of its config."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from furs_jax.costs import Cost
from furs_jax.data.batches import evaluation_batches
from furs_jax.data.dataset import AnySplit
from furs_jax.errors import ConfigError
from furs_jax.furs.estimate import Estimator, make_estimate
from furs_jax.machine import hosts
from furs_jax.objectives import Batch, Variables
from furs_jax.options.schema import FurOptions
from furs_jax.training.trainer import Task

# FURs while training look at one image for so many that are trained on.
_MONITOR_SHARE = 40


@dataclasses.dataclass(frozen=True)
class Reread:
    """Evaluation batches of a split, this host's parts, that can be read again and again."""

    split: AnySplit
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        return iter(evaluation_batches(self.split, self.batch_size, hosts.index(), hosts.count()))


def search_batches(task: Task, options: FurOptions, most: int = 0) -> Reread:
    """What FURs are measured on: `options` (config.furs) says how much of the search split.

    Args:
      most: at most so many images; 0 for no such limit.
    """
    counts = [count for count in (options.images, most) if count]
    split = evenly_spread(task.dataset.search, min(counts, default=0))
    return Reread(split, options.batch_size)


def evenly_spread(split: AnySplit, count: int) -> AnySplit:
    """`count` images evenly spread over the split; all of it where count is 0 or too large."""
    total = len(split.labels)
    if not 0 < count < total:
        return split
    return split.take(np.arange(count) * total // count)


def check_images(options: FurOptions, split: AnySplit) -> None:
    """Raises ConfigError where the split has too few images to measure FURs on."""
    images = len(split.labels)
    if min(images, options.images or images) < 2:
        raise ConfigError(
            f"FURs need at least two images; furs.images={options.images} of the {images} of the "
            "search split (data.search_fraction) are too few"
        )


def estimator_of(options: FurOptions) -> Estimator:
    return Estimator(**{field: getattr(options, field) for field in Estimator._fields})


def make_task_estimate(
    task: Task,
    options: FurOptions,
    channels: Sequence[int],
    cost: Cost | None = None,
    **changes: Any,
) -> Callable:
    """`make_estimate` of one of the task's networks, by config.furs with `changes`."""
    return make_estimate(
        task.net,
        channels,
        preprocess=task.preprocess,
        dtype=task.dtype,
        devices=task.devices,
        cost=cost,
        **{**estimator_of(options)._asdict(), **changes},
    )


def make_monitor(
    task: Task, options: FurOptions, channels: Sequence[int], cost: Cost
) -> Callable[[int, Variables], dict[str, Any]]:
    """Fisher FURs after every so many epochs of a training, for metrics.jsonl."""
    if not options.every_epochs:
        return lambda epoch, variables: {}
    estimate = make_task_estimate(task, options, channels, cost, method="fisher", metric="loss")
    # A gradient of gates costs about as much as one of weights: few per cent of an epoch.
    most = max(len(task.dataset.train.labels) * options.every_epochs // _MONITOR_SHARE, 2)
    batches = search_batches(task, options, most)

    def monitor(epoch: int, variables: Variables) -> dict[str, Any]:
        if epoch % options.every_epochs:
            return {}
        furs = estimate(variables, batches, 0, 0)
        return {"furs": furs.furs.tolist(), "furs_stderr": furs.furs_stderr.tolist()}

    return monitor
