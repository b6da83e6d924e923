"""FURs of a run's networks, on the images and with the options of its config."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from furs_jax.data import AnySplit, evaluation_batches
from furs_jax.furs.estimate import make_estimate
from furs_jax.jobs.prepare import estimator_of
from furs_jax.machine import hosts
from furs_jax.training.step import Batch
from furs_jax.training.train import Task


@dataclasses.dataclass(frozen=True)
class Reread:
    """Evaluation batches of a split, this host's parts, that can be read again and again."""

    split: AnySplit
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        return iter(evaluation_batches(self.split, self.batch_size, hosts.index(), hosts.count()))


def search_batches(task: Task, options: ml_collections.ConfigDict, most: int = 0) -> Reread:
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


def make_task_estimate(
    task: Task, options: ml_collections.ConfigDict, channels: Sequence[int], **changes: Any
) -> Callable:
    """`make_estimate` of one of the task's networks, by config.furs with `changes`."""
    return make_estimate(
        task.net,
        channels,
        preprocess=task.preprocess,
        dtype=task.dtype,
        devices=task.devices,
        **{**estimator_of(options)._asdict(), **changes},
    )
