"""Any job in a run's folder, done once: its result is kept in result.json, and shown."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from furs_jax.data.dataset import Dataset
from furs_jax.errors import FursError, WorkdirError
from furs_jax.jobs.compare import check_result
from furs_jax.jobs.fitting import fill
from furs_jax.jobs.prepare import data_digests, prepare
from furs_jax.jobs.vectors import AS_GIVEN
from furs_jax.machine import hosts
from furs_jax.machine.programs import compile_clock
from furs_jax.machine.sealed import AGAIN, damaged, write_json
from furs_jax.machine.stop import Stop
from furs_jax.networks.recording import record_network
from furs_jax.options.given import Given
from furs_jax.options.parse import as_record
from furs_jax.options.schema import Options
from furs_jax.options.units import amount
from furs_jax.report.watch import Watch
from furs_jax.run.console import Console
from furs_jax.run.context import Run
from furs_jax.run.folder import Workdir
from furs_jax.run.tables import network_table
from furs_jax.run.text import printable
from furs_jax.training.trainer import Task
from furs_jax.widths.budget import TOLERANCE

Record = dict[str, Any]

_WITH_PAGE = ("search", "train")  # modes; benchmarks leave other files


def run_in_folder(
    options: Options,
    workdir: str | pathlib.Path,
    work: Callable[[Run], Record],
    table: Callable[[Record], str],
    quiet: bool = False,
    stop: Stop | None = None,
    finals: Callable[[Run], Sequence[str]] = lambda run: (),
) -> Record:
    """Does `work` in a run's folder, once.

    Args:
      options, workdir, quiet, stop: as of `search`.
      work: what to do, resumable.
      table: how a result is printed.
      finals: names of the networks that are trained in the end, for who reads the run.
    """
    folder = Workdir(workdir, as_record(options))
    console = Console(quiet or not hosts.is_first())
    watch = Watch(folder.path, console) if options.mode in _WITH_PAGE else None
    try:
        for journal in (folder.metrics, folder.rounds, folder.measured, folder.finals):
            journal.read()  # damage is named before anything is computed
        options = fill(options, folder.begun_with())  # and goes on by
        result = folder.read_result()
        if result is not None:
            shown = _checked_table(folder, result, options, table)
            if watch is not None and not _is_shown(folder, watch):
                watch.look(runs=False)
        else:
            with compile_clock() as clock:
                run = Run(*prepare(options), folder, console, clock, stop or Stop())
                _begin(run, finals(run))
                with contextlib.nullcontext() if watch is None else watch.following(folder):
                    result = json.loads(json.dumps(work(run)))
                    write_json(folder.result, result)
                shown = table(result)
        console.print(f"\n{shown}\n\n{_places(folder, result, watch)}")
        return result
    finally:
        folder.close()


def _is_shown(folder: Workdir, watch: Watch) -> bool:
    """Whether the page of a finished run is there, and not older than its result."""
    files = (watch.page, folder.result)
    if not all(file.exists() for file in files):
        return False
    page, result = (file.stat().st_mtime for file in files)
    return page >= result


def _places(folder: Workdir, result: Record, watch: Watch | None) -> str:
    """Where what a run leaves behind lies."""
    places = [("page", watch.page)] if watch is not None else []
    name = next((name for name in ("searched", "trained") if name in result), None)
    if name and (network := folder.trained(name)):
        places += [("network", network), ("in Python", f"furs_jax.load({str(folder.path)!r})")]
    places.append(("result", folder.result))
    return "\n".join(f"{what:9}  {printable(str(place))}" for what, place in places)


def _begin(run: Run, finals: Sequence[str]) -> None:
    """Shows what is begun, and writes config.json or sees that it is the same run.

    Raises:
      WorkdirError: the run began with other channels, images, or another network that was given.
    """
    folder, task, channels = run.workdir, run.task, list(run.start)
    run.console.print(_header(run))
    environment = _environment(task)
    network = record_network(task.net, channels, task.dataset.num_classes)
    data = _record_data(task.dataset)
    told = {"network": network, "data": data, "finals": list(finals)}
    if run.options.mode not in AS_GIVEN:
        limits = {name: most for name, _, most in run.cost.limits}
        told["budget"] = {"most": run.budget, "unit": run.cost.unit, "limits": limits}
    tables = {cost.name: cost.digest() for cost in run.cost.every()}
    told["tables"] = {name: digest for name, digest in tables.items() if digest is not None}
    stored = folder.start(as_record(run.options), {"channels": channels, **told, **environment})
    begun = {name: stored.pop(name) or {} for name in told}  # not in runs of earlier versions
    if begun["data"].get("digests", data["digests"]) != data["digests"]:
        raise WorkdirError(
            f"workdir {folder.path} began with other images of {task.dataset.name} than are there "
            "now; give another --workdir, or those images to go on with it"
        )
    if begun["tables"] != told["tables"]:
        raise WorkdirError(
            f"workdir {folder.path} began with another cost.table than is there now; give another "
            "--workdir, or that table to go on with it"
        )
    layers = json.loads(json.dumps(network)).get("layers")
    if isinstance(run.options.network, Given) and begun["network"].get("layers") != layers:
        raise WorkdirError(
            f"workdir {folder.path} began with another network of the name {task.net.name}: its "
            "layers are others; give another --workdir, or that network to go on with it"
        )
    if (begun := stored.pop("channels")) not in (None, channels):
        raise WorkdirError(
            f"workdir {folder.path} began with channels {begun}, which are {channels} "
            "now: channels_from or init_from has changed; give another --workdir"
        )
    if stored != environment:
        run.console.print(
            f"note: {folder.config} names other devices or versions than these; figures may differ "
            "in the last digits from those of a run that was not moved"
        )


def _header(run: Run) -> str:
    """Devices, data and the network of the vector that is begun with."""
    task, data, device = run.task, run.task.dataset, run.task.devices[0]
    shape = "x".join(map(str, data.image_shape))
    budget = "" if run.options.mode in AS_GIVEN else f", {_allowed(run)}"
    return (
        f"devices  {len(task.devices)} x {device.device_kind} ({device.platform}), "
        f"{task.dtype}\n"
        f"data     {printable(data.name)}: {shape}, {data.num_classes} classes; "
        f"train {len(data.train.labels):,}, search {len(data.search.labels):,}, "
        f"test {len(data.test.labels):,} images\n"
        f"network  {printable(task.net.name)}, {len(task.net.channels)} sites{budget}\n"
        f"workdir  {printable(str(run.workdir.path))}\n\n"
        f"{network_table(task.net, run.start)}\n"
    )


def _allowed(run: Run) -> str:
    """Budget and limits, and what these leave of it."""
    cost, budget = run.cost, run.budget
    told = f"budget {amount(budget)} {cost.unit}"
    for _, limited, most in cost.limits:
        told += f", at most {amount(most)} {limited.unit}"
    unused = 1 - cost.of(run.start) / budget
    if cost.limits and unused > TOLERANCE:
        told += f": the first widths within them use {100 * (1 - unused):.1f} % of the budget"
    return told


def _checked_table(
    folder: Workdir, result: Record, options: Options, table: Callable[[Record], str]
) -> str:
    """Of a result that was there."""
    try:
        check_result(folder, result, options)
        return table(result)
    except FursError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(folder.result, str(error), AGAIN) from error


def _record_data(dataset: Dataset) -> Record:
    """What one needs besides the weights to use what is found: see `furs_jax.jobs.load`."""
    fields = ("mean", "std", "class_names")
    splits = ("train", "search", "test")
    return {
        **{field: list(getattr(dataset, field)) for field in fields},
        "images": {split: len(getattr(dataset, split).labels) for split in splits},
        "eval_crop": dataset.test.eval_crop,
        "digests": data_digests(dataset),
    }


def _environment(task: Task) -> Record:
    """What besides the config may change a run's figures."""
    import flax
    import jaxlib
    import optax

    return {
        "versions": {m.__name__: m.__version__ for m in (jax, jaxlib, flax, optax, np)},
        "devices": [f"{device.platform}:{device.device_kind}" for device in task.devices],
    }
