"""What is checked and made ready before a run computes anything: data, network, budget, devices."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from furs_jax.costs import Cost
from furs_jax.data import Reading, load_dataset
from furs_jax.data.dataset import AnySplit, Dataset, Split
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.furs.measure import check_images, estimator_of
from furs_jax.jobs.fitting import final_split, fit
from furs_jax.jobs.vectors import (
    AS_GIVEN,
    initial_network,
    start_vector,
    teacher_network,
    unpruned_network,
)
from furs_jax.machine import hosts
from furs_jax.machine.devices import resolve_dtype, set_up
from furs_jax.methods import Method, load_method
from furs_jax.networks.network import Network
from furs_jax.objectives import load_objective
from furs_jax.options.schema import BENCHMARKS, FRESH, DataOptions, Options
from furs_jax.options.units import amount
from furs_jax.run.context import Prepared
from furs_jax.training.distill import ORIGINAL
from furs_jax.training.loading import load_network
from furs_jax.training.recipe import check_recipe
from furs_jax.training.step import check_batch_size
from furs_jax.training.trainer import Task
from furs_jax.widths.bounds import Bounds, known_widths, site_bounds
from furs_jax.widths.budget import TOLERANCE, fit_to_budget, width_ends


def prepare(options: Options) -> Prepared:
    """Loads the data, builds the network and checks every option, before any training."""
    method, objective = load_method(options.method), load_objective(options.objective)
    check_options(options, method)
    dataset = dataset_of(options.data)
    options = fit(options, dataset)
    batch_sizes = {
        "eval_batch_size": options.eval_batch_size,
        "furs.batch_size": options.furs.batch_size,
        "train.batch_size": options.train.batch_size,
        "final.train.batch_size": options.final.train.batch_size,
    }
    # Weights that are given below are read onto a device.
    devices = set_up(options.cpu_devices, batch_sizes.values())
    hosts.agree("the data", data_digests(dataset))
    cost, budget = initial_network(options, dataset)
    dtype = resolve_dtype(options.dtype)
    for own in cost.every():
        own.check(devices[0].device_kind, dtype)
    _check_units(options, method, cost)
    net = cost.net
    unpruned = unpruned_network(options, dataset)
    prunes = options.mode == "search" and method.prunes
    start = net.channels if prunes else start_vector(options, cost, budget)
    bounds = site_bounds(options.reallocate, net, start, cost=cost)
    if options.mode not in AS_GIVEN:
        fit_to_budget(net, net.channels, budget, cost=cost, **bounds._asdict())
        _check_reach(cost, budget, bounds)
    _check_weights(options, unpruned if prunes else net, unpruned.channels if prunes else start)
    if options.kd.teacher not in (None, ORIGINAL):
        teacher = teacher_network(options, dataset)
        load_network(options.kd.teacher, teacher, "kd.teacher", options.data.name)
    for option, size in batch_sizes.items():
        check_batch_size(option, size, len(devices))
    check_recipe(options.train, "train", dataset.train)
    check_recipe(options.final.train, "final.train", final_split(options, dataset))
    if options.mode == "furs":
        check_images(options.furs, dataset.search)
    task = Task(
        net, dataset, devices, dtype, options.eval_batch_size, objective, options.step_programs
    )
    prepared = Prepared(options, task, cost, budget, start, unpruned, bounds)
    method.check(options, prepared)
    return prepared


def data_digests(dataset: Dataset) -> list[int]:
    """By which the three splits are known again."""
    return [_digest(split) for split in (dataset.train, dataset.search, dataset.test)]


def _check_units(options: Options, method: Method, cost: Cost) -> None:
    """Raises ConfigError where a method, or blocks, would ask for costs that are not known."""
    units, widest = known_widths(cost, 1)
    if options.mode in AS_GIVEN or (np.all(np.equal(units, 1)) and np.all(np.isinf(widest))):
        return
    for moves, option, way_on in (
        (method.moves_in_units, f"method={options.method}", "give another method"),
        (not options.search.blocks, "search.blocks=True", "give search.blocks=False"),
        (options.mode != "truth", "bench truth", "give another benchmark"),
    ):
        if not moves:
            raise ConfigError(
                f"config.cost has a resource that is known of some widths only, and {option} "
                f"asks for others, too; {way_on}, or another resource"
            )


def _check_reach(cost: Cost, budget: float, bounds: Bounds) -> None:
    """Raises BudgetError where all sites at their widest don't use the budget."""
    if np.all(np.isfinite(bounds.max_channels)):
        _, highest = width_ends(len(cost.net.channels), **bounds._asdict())
        most = cost.of(tuple(map(int, highest)))
        if most < (1 - TOLERANCE) * budget:
            known = np.any(np.isfinite(known_widths(cost, 1)[1]))
            raise BudgetError(
                "with reallocate.max_channels and fixed"
                f"{', and widths that its cost is known of,' if known else ''} {cost.net.name} at "
                f"its widest has {amount(most)} of the budget's {amount(budget)} {cost.unit}; give "
                f"wider ones, or --config.cost.budget={most:g}"
            )


def _digest(split: AnySplit) -> int:
    """Of the labels, and of images in memory; those on disk are not read for it."""
    of_labels = zlib.crc32(split.labels.tobytes())
    return zlib.crc32(split.images.tobytes(), of_labels) if isinstance(split, Split) else of_labels


def _check_weights(options: Options, net: Network, start: Sequence[int]) -> None:
    """Raises ConfigError where a training can't begin with the weights of init_from."""
    if options.init_from is None or options.mode not in ("search", "train"):
        return
    way_on = "; give --config.init_head=fresh to begin with all its weights but the head's"
    channels, _ = load_network(
        options.init_from, net, "init_from", options.data.name, options.init_head, way_on
    )
    if channels != tuple(start):
        raise ConfigError(
            f"init_from={options.init_from} has channels {channels}, which are not those to train: "
            f"{start}. To take the checkpoint's leave channels and channels_from out, "
            "and give a search the checkpoint's MACs, by width_multiplier or a budget"
        )


def check_options(options: Options, method: Method) -> None:
    """Raises ConfigError where an option can't have its value beside another."""
    for name in method.unused if options.mode == "search" else ():
        if getattr(options, name):
            given = "weights" if name == "init_from" else "widths"
            raise ConfigError(
                f"method={options.method} has no use for {name}: it does not begin with {given} "
                f"that are given; leave {name} out"
            )
    if options.search.blocks and not (method.moves_blocks and options.mode not in BENCHMARKS):
        which = f"mode={options.mode}" if method.moves_blocks else f"method={options.method}"
        raise ConfigError(f"{which} does not move blocks; give search.blocks=False")
    _check_budget(options)
    if options.init_head == FRESH and (
        options.init_from is None or options.mode in ("evaluate", "furs")
    ):
        raise ConfigError(
            "init_head=fresh is for trainings (mode=search or train) that begin with the weights "
            "of init_from"
        )
    if options.kd.teacher is not None and options.objective != "cross_entropy":
        raise ConfigError("kd.teacher teaches beside cross-entropy; leave out objective, or kd")
    if options.kd.teacher == ORIGINAL and not options.final.original:
        raise ConfigError(
            "kd.teacher=original is a network that final.original=False leaves out; give the "
            "teacher as a folder in a run's checkpoints/"
        )
    estimator_of(options.furs).check()


def _check_budget(options: Options) -> None:
    cost = options.cost
    given = {"flops_budget": options.flops_budget, "cost.budget": cost.budget}
    named = [name for name, value in given.items() if value is not None]
    if len(named) == 2:
        raise ConfigError("flops_budget and cost.budget are the same: give one of them")
    if options.flops_budget is not None and cost.resource != "macs":
        raise ConfigError(
            f"flops_budget counts MACs, and cost.resource is {cost.resource}: give the budget as "
            "--config.cost.budget, or MACs beside it as --config.cost.limits.macs; "
            "--config.flops_budget=None takes a config file's out"
        )
    if named and options.width_multiplier != 1.0:
        raise ConfigError(
            f"{named[0]} sets the width of the original network, so width_multiplier must stay 1; "
            f"it is {options.width_multiplier:g} here: add --config.width_multiplier=1"
        )


def dataset_of(options: DataOptions) -> Dataset:
    return load_dataset(
        options.name,
        options.search_fraction,
        options.search_split,
        options.seed,
        options.dir,
        Reading(
            **{field.name: getattr(options, field.name) for field in dataclasses.fields(Reading)}
        ),
        options.pool,
    )
