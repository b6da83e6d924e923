"""What the parts of one run share."""

from typing import NamedTuple

import numpy as np

from furs_jax.costs import Cost
from furs_jax.machine.programs import CompileClock
from furs_jax.machine.stop import Stop
from furs_jax.networks.network import Network
from furs_jax.options.schema import Options
from furs_jax.run.console import Console
from furs_jax.run.folder import Workdir
from furs_jax.training.trainer import Task
from furs_jax.widths.bounds import Bounds


class Prepared(NamedTuple):
    """What a run starts from."""

    options: Options  # with a number wherever one was "auto"
    task: Task  # its network has the original's channels
    cost: Cost
    budget: float  # of the cost
    start: tuple[int, ...]  # the first vector
    unpruned: Network  # what a method that prunes begins with
    bounds: Bounds  # of the sites' widths


class Run(NamedTuple):
    """A checked run, ready to compute."""

    options: Options
    task: Task  # its network has the original's channels
    cost: Cost
    budget: float  # of the cost
    start: tuple[int, ...]  # the first vector
    unpruned: Network  # what a method that prunes begins with
    bounds: Bounds  # of the sites' widths
    workdir: Workdir
    console: Console
    clock: CompileClock
    stop: Stop


def derived_seed(seed: int, purpose: int, index: int) -> int:
    """An independent seed for one use: purpose 1 rounds, 2 FURs, 3 final
    trainings, 4 the random control, 5 the slimmable network, 6 TAS, 7 the
    response surface, 8 blocks' ratios, 9 their random control."""
    state = np.random.SeedSequence((seed, purpose, index)).generate_state(1)
    return int(state[0] >> 1)  # non-negative as int32
