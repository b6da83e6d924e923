"""A search from start to end: the rounds, then original against searched. Resumable."""

import json
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from furs_jax.data import Dataset
from furs_jax.errors import DamagedError, FursError, WorkdirError
from furs_jax.jobs.compare import check_finals, check_result, compare, compared
from furs_jax.jobs.prepare import AS_GIVEN, prepare
from furs_jax.machine import hosts
from furs_jax.machine.programs import compile_clock
from furs_jax.machine.stop import Stop
from furs_jax.methods.network_adjustment import check_rounds, is_complete, run_rounds
from furs_jax.networks.recorded import record_network
from furs_jax.options.parse import resolve_paths
from furs_jax.run.console import Console
from furs_jax.run.folder import AGAIN, Workdir, damaged, write_json
from furs_jax.run.phases import Record, Run
from furs_jax.run.tables import result_table
from furs_jax.training.train import Task

SearchResult = Record  # as result.json: see README


def search(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    quiet: bool = False,
    stop: Stop | None = None,
) -> SearchResult:
    """Runs a search, or goes on with one, and returns what result.json holds.

    Args:
      config: all options, see configs/default.py.
      workdir: the run's folder. A folder of the same config is resumed.
      quiet: print nothing.
      stop: looked at between the steps of a training, which is then saved.

    Raises:
      StoppedError: `stop` was asked for.
      FursError: an option, the data, the budget or the folder can't work, all found before any
        training; or the training diverged.
    """

    def work(run: Run) -> SearchResult:
        check_journals(run)
        return compare(run, run_rounds(run))

    return run_in_folder(config, workdir, work, result_table, quiet, stop)


def run_in_folder(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    work: Callable[[Run], Record],
    table: Callable[[Record], str],
    quiet: bool = False,
    stop: Stop | None = None,
) -> Record:
    """Does `work` in a run's folder, once: its result is kept in result.json, and shown.

    Args:
      config, workdir, quiet, stop: as of `search`.
      work: what to do, resumable.
      table: how a result is printed.
    """
    config = resolve_paths(config)
    folder = Workdir(workdir, _as_json(config))
    console = Console(quiet or not hosts.is_first())
    try:
        for journal in (folder.metrics, folder.rounds, folder.finals):
            journal.read()  # damage is named before anything is computed
        result = folder.read_result()
        if result is not None:
            shown = _checked_table(folder, result, config.search.select, table)
        else:
            with compile_clock() as clock:
                prepared = prepare(config)
                run = Run(config, *prepared, folder, console, clock, stop or Stop())
                environment = _environment(run.task)
                budget = None if config.mode in AS_GIVEN else run.budget
                console.header(folder, run.task, budget, run.start)
                channels = list(run.start)
                network = record_network(run.task.net, channels, run.task.dataset.num_classes)
                data = _record_data(run.task.dataset)
                begin = {"channels": channels, "network": network, "data": data, **environment}
                stored = folder.start(_as_json(config), begin)
                for name in ("network", "data"):  # for readers, not in runs of earlier versions
                    stored.pop(name)
                if (begun := stored.pop("channels")) not in (None, channels):
                    raise WorkdirError(
                        f"workdir {folder.path} began with channels {begun}, which are {channels} "
                        "now: channels_from or init_from has changed; give another --workdir"
                    )
                if stored != environment:
                    console.moved(folder)
                result = json.loads(json.dumps(work(run)))
                write_json(folder.result, result)
                shown = table(result)
        console.print(f"\n{shown}\n{folder.result}")
        return result
    finally:
        folder.close()


def check_journals(run: Run) -> None:
    """Whether each line of a search's journals follows from the config and the lines before.

    Raises:
      DamagedError: one doesn't.
    """
    rounds, finals = run.workdir.rounds, run.workdir.finals
    check_rounds(run, rounds.read())
    check_finals(run, compared(run))
    if finals.read() and not is_complete(run, rounds.read()):
        raise DamagedError(
            f"{rounds.path} lacks rounds that were there before the trainings of {finals.path}; "
            f"restore it, or delete {finals.path.name}: the trainings are tested again"
        )


def _checked_table(
    folder: Workdir, result: Record, select: str, table: Callable[[Record], str]
) -> str:
    """Of a result that was there."""
    try:
        check_result(folder, result, select)
        return table(result)
    except FursError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(folder.result, str(error), AGAIN) from error


def _as_json(config: ml_collections.ConfigDict) -> Record:
    return json.loads(config.to_json_best_effort())


def _record_data(dataset: Dataset) -> Record:
    """What one needs besides the weights to use what is found: see `furs_jax.jobs.load`."""
    fields = ("mean", "std", "class_names")
    return {field: list(getattr(dataset, field)) for field in fields}


def _environment(task: Task) -> Record:
    """What besides the config may change a run's figures."""
    import flax
    import jaxlib
    import optax

    return {
        "versions": {m.__name__: m.__version__ for m in (jax, jaxlib, flax, optax, np)},
        "devices": [f"{device.platform}:{device.device_kind}" for device in task.devices],
    }
