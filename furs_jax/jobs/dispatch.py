"""What a config's `mode` asks for: a search, or one of its parts alone."""

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections

from furs_jax import paths
from furs_jax.errors import ConfigError, DataError, MissingExtraError
from furs_jax.furs.measure import make_task_estimate, search_batches
from furs_jax.furs.significance import what_draws_bought
from furs_jax.jobs.compare import check_finals, train_seeds
from furs_jax.jobs.prepare import Prepared, given_channels, initial_network, prepare, start_vector
from furs_jax.jobs.search import run_in_folder, search
from furs_jax.machine import hosts
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import AUTO, OPTIONS
from furs_jax.run.folder import write_json
from furs_jax.run.phases import Record, Run
from furs_jax.run.statistics import Interval
from furs_jax.run.tables import format_table, furs_table, network_table
from furs_jax.training.loading import load_network
from furs_jax.training.train import make_evaluator


def run(
    config: ml_collections.ConfigDict, workdir: str | None, stop: Stop | None = None
) -> Record | None:
    """Does what config.mode says.

    Args:
      config: all options, see configs/default.py.
      workdir: the run's folder, needed by the modes that train; the others write what they found
        into it where it is given.
      stop: as of `search`.

    Raises:
      FursError: see `search`.
    """
    modes: dict[str, Callable] = {
        "search": functools.partial(search, stop=stop),
        "train": functools.partial(train_vector, stop=stop),
        "evaluate": evaluate,
        "furs": measure,
        "describe": describe,
    }
    if config.mode not in modes:
        raise ConfigError(f"mode={config.mode!r} must be {OPTIONS['mode']}")
    if workdir is None and config.mode in ("search", "train"):
        raise ConfigError("give the run's folder, as in --workdir=runs/digits")
    return modes[config.mode](config, workdir)


def train_vector(
    config: ml_collections.ConfigDict, workdir: str, stop: Stop | None = None
) -> Record:
    """Trains the network of `channels` by config.final, and reads the test split."""

    def work(run_: Run) -> Record:
        check_finals(run_, ["trained"])
        return {
            "mode": "train",
            "trained": train_seeds(run_, "trained", run_.start, init_from=True),
        }

    def table(result: Record) -> str:
        entry = result["trained"]
        scores = (Interval(*entry[key]).format() for key in ("top1", "top5"))
        row = ("trained", f"{entry['macs']:,}", f"{entry['params']:,}", *scores)
        header = ("network", "MACs", "params", "top-1 %", "top-5 %")
        seeds = len(entry["seeds"])
        return f"{format_table(header, [row])}\ntest split, {seeds} seed{'s' if seeds > 1 else ''}"

    return run_in_folder(config, workdir, work, table, stop=stop)


def evaluate(config: ml_collections.ConfigDict, workdir: str | None) -> Record:
    """Loss and accuracy of a checkpoint on the test split."""
    prepared, channels, variables = _checkpoint(config)
    task = prepared.task
    found = make_evaluator(task, channels)(variables, task.dataset.test)
    print(
        f"{task.net.name}, {task.net.macs(channels):,} MACs, {len(task.dataset.test.labels):,} "
        f"test images of {task.dataset.name}: loss {found['loss']:.4f}, top-1 "
        f"{100 * found['top1']:.2f}%, top-5 {100 * found['top5']:.2f}%"
    )
    return _write(workdir, "evaluate.json", {"channels": list(channels), **found})


def measure(config: ml_collections.ConfigDict, workdir: str | None) -> Record:
    """FURs of a checkpoint on the search split."""
    prepared, channels, variables = _checkpoint(config)
    task, options = prepared.task, config.furs
    found = make_task_estimate(task, options, channels)(
        variables, search_batches(task, options), config.reallocate.num_layers, config.seed
    )
    print(furs_table(task.net.site_names, channels, found))
    if options.draws == AUTO and (bought := what_draws_bought(found, options.max_draws)):
        print(bought)
    return _write(workdir, "furs.json", {"channels": list(channels), **found.as_json()})


def describe(config: ml_collections.ConfigDict, workdir: str | None) -> None:
    """Prints the table of layers.

    Where the data is not there, it says so and prints that for the network's usual images. A folder
    of one's own has no usual ones, so that it must be there.
    """
    del workdir
    try:
        prepared = prepare(config)
        net, start = prepared.task.net, prepared.start
        images = f"the images of {config.data.name}"
    except (DataError, MissingExtraError) as error:
        if config.data.name.startswith("folder:"):
            raise
        print(f"furs_jax: this is the table of other images: {error}", file=sys.stderr)
        net, budget = initial_network(config, _UsualImages())
        start, images = start_vector(config, net, budget), "its usual images"
    channels = given_channels(config, net) or net.channels
    print(network_table(net, channels))
    if start != channels:
        widths = " ".join(map(str, start))
        print(f"a search brings that to its budget: {widths}, {net.macs(start):,} MACs")
    print(f"{net.name} for {images}: {'x'.join(map(str, net.image_shape))}")


class _UsualImages(NamedTuple):
    """In place of a data set that is not there: images and classes that a network is known for."""

    image_shape: None = None
    num_classes: None = None


def _checkpoint(
    config: ml_collections.ConfigDict,
) -> tuple[Prepared, Sequence[int], Any]:
    if not config.init_from:
        raise ConfigError(
            f"mode={config.mode} looks at a trained network: give it as init_from, a folder in a "
            "run's checkpoints/, such as runs/x/checkpoints/final_searched_0"
        )
    prepared = prepare(config)
    net, data = prepared.task.net, config.data.name
    channels, variables = load_network(config.init_from, net, "init_from", data)
    return prepared, channels, jax.device_put(variables, jax.local_devices()[0])


def _write(workdir: str | None, name: str, record: Record) -> Record:
    if workdir is not None and hosts.is_first():
        folder = pathlib.Path(paths.resolve(workdir, "workdir="))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, record)
    return json.loads(json.dumps(record))
