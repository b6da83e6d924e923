"""mode=evaluate and mode=furs: what a checkpoint's network does on the data."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from furs_jax import paths
from furs_jax.errors import ConfigError
from furs_jax.furs.measure import make_task_estimate, search_batches
from furs_jax.furs.ratios import FURs
from furs_jax.furs.significance import what_draws_bought
from furs_jax.jobs.prepare import prepare
from furs_jax.machine import hosts
from furs_jax.machine.sealed import write_json
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import AUTO, Options
from furs_jax.run.context import Prepared
from furs_jax.run.tables import format_table
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.loading import load_network

Record = dict[str, Any]


def evaluate(options: Options, workdir: str | None, stop: Stop | None = None) -> Record:
    """Loss and accuracy of a checkpoint on the test split."""
    prepared, channels, variables = _checkpoint(options)
    task = prepared.task
    found = Evaluator(task, channels)(variables, task.dataset.test)
    print(
        f"{task.net.name}, {task.net.macs(channels):,} MACs, {len(task.dataset.test.labels):,} "
        f"test images of {task.dataset.name}: loss {found['loss']:.4f}, top-1 "
        f"{100 * found['top1']:.2f}%, top-5 {100 * found['top5']:.2f}%"
    )
    return _write(workdir, "evaluate.json", {"channels": list(channels), **found})


def measure(options: Options, workdir: str | None, stop: Stop | None = None) -> Record:
    """FURs of a checkpoint on the search split."""
    prepared, channels, variables = _checkpoint(options)
    task, furs = prepared.task, options.furs
    found = make_task_estimate(task, furs, channels, cost=prepared.cost)(
        variables, search_batches(task, furs), options.reallocate.num_layers, options.seed
    )
    print(furs_table(task.net.site_names, channels, found, prepared.cost.unit))
    if furs.draws == AUTO and (bought := what_draws_bought(found, furs.max_draws)):
        print(bought)
    return _write(workdir, "furs.json", {"channels": list(channels), **found.as_json()})


def _checkpoint(
    options: Options,
) -> tuple[Prepared, Sequence[int], Any]:
    if not options.init_from:
        raise ConfigError(
            f"mode={options.mode} looks at a trained network: give it as init_from, a folder in a "
            "run's checkpoints/, such as runs/x/checkpoints/final_searched_0"
        )
    prepared = prepare(options)
    net, data = prepared.task.net, options.data.name
    channels, variables = load_network(options.init_from, net, "init_from", data)
    return prepared, channels, jax.device_put(variables, jax.local_devices()[0])


def _write(workdir: str | None, name: str, record: Record) -> Record:
    if workdir is not None and hosts.is_first():
        folder = pathlib.Path(paths.resolve(workdir, "workdir="))
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, record)
    return json.loads(json.dumps(record))


def furs_table(names: Sequence[str], channels: Sequence[int], furs: FURs, unit: str) -> str:
    """FURs of the sites, the highest first, with their standard errors."""
    rows = [
        (
            names[site],
            site,
            channels[site],
            f"{furs.drop_rates[site]:.3f}",
            f"{1e9 * furs.furs[site]:.4g}",
            f"{1e9 * furs.furs_stderr[site]:.2g}",
            f"{furs.loss_increase[site]:.5f}",
            f"{furs.accuracy_drop[site]:.5f}",
        )
        for site in np.argsort(-furs.furs)
    ]
    ratio = "FUR per GMAC" if unit == "MACs" else f"FUR per 1e9 {unit}"
    header = (
        "layer",
        "site",
        "channels",
        "drop rate",
        ratio,
        "s.e.",
        "loss rise",
    )
    return (
        f"{format_table((*header, 'accuracy drop'), rows)}\n"
        f"loss {furs.loss:.4f}, accuracy {100 * furs.accuracy:.2f}% undropped; {furs.draws} draws"
    )
