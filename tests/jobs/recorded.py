"""What a run asked for, recorded: its config, its data, and the calls; `recording` makes them."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from configs import digits
from furs_jax.data.dataset import AnySplit, Dataset
from furs_jax.furs.estimate import Estimator
from furs_jax.jobs.search import search
from furs_jax.run.journal import Journal
from furs_jax.training.distill import Teacher
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer
from tests.training.test_step import random_split

OPTIONS = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "train.batch_size": 16,
    "final.train.batch_size": 8,
    "furs.batch_size": 8,
    "eval_batch_size": 24,
    "cpu_devices": 0,
    "search.rounds": 3,
    "reallocate.step": 0.5,
    "final.seeds": 2,
}
DATA = Dataset(
    "noise", random_split(96), random_split(40, 1), random_split(24, 2), 10, (0.5,), (0.25,)
)


def small(**changes):
    config = digits.get_config()
    config.update_from_flattened_dict({**OPTIONS, **changes})
    return config


class Training(NamedTuple):
    phase: str  # the checkpoint's folder
    trainer: Trainer
    seed: int
    state: TrainState  # at its begin
    monitored: dict  # after its last epoch
    teacher: Teacher | None
    checkpoint_seconds: float
    dtype: str
    devices: int


class Evaluation(NamedTuple):
    variables: Any  # the phase that has made them
    channels: tuple[int, ...]
    split: AnySplit
    batch_size: int


class Estimate(NamedTuple):
    variables: Any
    channels: tuple[int, ...]
    split: AnySplit
    batch_size: int
    num_layers: int
    seed: int
    estimator: Estimator
    dtype: str
    devices: int
    normalises: bool  # as training does


@dataclasses.dataclass
class Recording:
    """What a run did, in order."""

    calls: list
    losses: dict[str, float]  # on the search split, of a phase; else 0.5
    spread: float = 9.0
    separation: float = 9.0
    block_furs: Callable[[Sequence[int]], Sequence[float]] = list  # of each measured stage
    loss_of: Callable[[Sequence[int]], float] = lambda channels: 0.5  # where `losses` has none

    def of(self, kind: type) -> list:
        return [call for call in self.calls if isinstance(call, kind)]

    def search(self, folder: pathlib.Path, **changes):
        return search(small(**changes), folder, quiet=True)


def same_images(split, *parts):
    images = np.concatenate([part.images for part in parts])
    return np.array_equal(split.images, images)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def workdir_lines(folder, name):
    return Journal(folder / f"{name}.jsonl").read()
