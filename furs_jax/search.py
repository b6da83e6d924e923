"""A search from start to end: the rounds, then original against searched. Resumable."""

import json
import pathlib

import jax
import ml_collections
import numpy as np

from furs_jax.final import compare
from furs_jax.prepare import prepare
from furs_jax.report.console import Console
from furs_jax.rounds import run_rounds
from furs_jax.run import Record, Run
from furs_jax.runtime import compile_clock
from furs_jax.train import Task
from furs_jax.workdir import Workdir, read_json, write_json

SearchResult = Record  # as result.json: see README


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
            prepared = prepare(config)
            run = Run(config, *prepared, folder, console, clock)
            environment = _environment(run.task)
            console.header(folder, run.task, run.budget)
            if folder.start(_as_json(config), environment) != environment:
                console.moved(folder)
            result = compare(run, run_rounds(run))
            write_json(folder.result, result)
            console.finished(folder, result)
            return result
    finally:
        folder.close()


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
