"""A search from start to end: a vector is found, then original against searched. Resumable."""

import copy
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import ml_collections
import numpy as np

from furs_jax.data.arrays import Arrays, given_data
from furs_jax.errors import ConfigError, DamagedError
from furs_jax.jobs.compare import check_finals, compare, compared
from furs_jax.jobs.harness import run_in_folder
from furs_jax.jobs.measured import within_measured
from furs_jax.machine.stop import Stop
from furs_jax.methods import Method, load_method
from furs_jax.networks.by_name import given_module
from furs_jax.options.parse import parse
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.run.tables import result_table
from furs_jax.widths.bounds import fixed_sites

SearchResult = dict[str, Any]  # as result.json: see docs/REFERENCE.md


def search(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    quiet: bool = False,
    stop: Stop | None = None,
    *,
    data: Arrays | Sequence[np.ndarray] | None = None,
    network: nn.Module | None = None,
) -> SearchResult:
    """Runs a search, or goes on with one, and returns what result.json holds.

        furs_jax.search(config, "runs/mine", data=(images, labels), network=MyNet())

    Args:
      config: all options, see configs/default.py.
      workdir: the run's folder. A folder of the same config is resumed.
      quiet: print nothing.
      stop: looked at between the steps of a training, which is then saved.
      data: images and labels, or others that furs_jax/data/arrays.py names, in place of
        config.data.name. To go on with the run give the same again.
      network: a module of your own, as of `Network.from_module`, in place of config.network. To go
        on with the run give an equal one, and to `furs_jax.load`, too.

    Raises:
      StoppedError: `stop` was asked for.
      FursError: an option, the data, the budget or the folder can't work, all found before any
        training; or the training diverged.
    """
    return perform(_with_given(config, data, network), workdir, stop, quiet)


def _with_given(
    config: ml_collections.ConfigDict,
    data: Arrays | Sequence[np.ndarray] | None,
    network: nn.Module | None,
) -> Options:
    """The options of a config with what the caller gives in place of what it names."""
    config = copy.deepcopy(config)
    images = None if data is None else given_data(data)
    module = None if network is None else given_module(network)
    with config.unlocked():  # set before it is resolved: its width follows the network's name
        config.data.name = images or config.data.name
        config.network = module or config.network
    options = parse(config)  # has their names alone
    named = dataclasses.replace(options.data, name=images or options.data.name)
    return dataclasses.replace(options, data=named, network=module or options.network)


def perform(
    options: Options, workdir: str | pathlib.Path, stop: Stop | None = None, quiet: bool = False
) -> SearchResult:
    """`search`, by its options."""
    method = load_method(options.method)

    def work(run: Run) -> SearchResult:
        check_journals(run, method)
        found = method.search(run)
        _check_found(run, method, found)
        return compare(run, method, within_measured(run, found), found)

    def finals(run: Run) -> tuple[str, ...]:
        return compared(run, method)

    return run_in_folder(options, workdir, work, result_table, quiet, stop, finals)


def _check_found(run: Run, method: Method, found: tuple[int, ...]) -> None:
    """Raises ConfigError where a method that moves channels exceeds limits or moves fixed sites."""
    own = zip(run.start, run.unpruned.channels, strict=True)
    fixed = fixed_sites(run.options.reallocate, run.task.net)
    moved = [site for site, stays in enumerate(own) if site in fixed and found[site] not in stays]
    if not method.prunes and (moved or not run.cost.within(found)):
        names = ", ".join(run.task.net.site_names[site] for site in moved)
        broken = f"moves {names}" if moved else "exceeds config.cost.limits"
        raise ConfigError(
            f"method={run.options.method} has found {list(found)}, which {broken}: let it bring "
            "its vectors to the budget by `fit_to_budget` with `run.cost` and `run.bounds`"
        )


def check_journals(run: Run, method: Method) -> None:
    """Whether each line of a search's journals follows from the options and the lines before.

    Raises:
      DamagedError: one doesn't.
    """
    rounds, finals = run.workdir.rounds, run.workdir.finals
    method.check_journal(run)
    check_finals(run, compared(run, method))
    if finals.read() and not method.is_complete(run):
        raise DamagedError(
            f"{rounds.path} lacks rounds that were there before the trainings of {finals.path}; "
            f"restore it, or delete {finals.path.name}: the trainings are tested again"
        )
