"""What is checked and made ready before a run computes anything: data, network, budget, devices."""

import dataclasses

import ml_collections

from furs_jax import furs as furs_lib
from furs_jax.data import AnySplit, Dataset, Reading, load_dataset
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks import Network, get_network
from furs_jax.reallocate import fit_to_budget
from furs_jax.runtime import resolve_dtype, set_up
from furs_jax.step import check_batch_size
from furs_jax.train import Recipe, Task

SELECTIONS = ("last", "best")


def prepare(config: ml_collections.ConfigDict) -> tuple[Task, int]:
    """Loads the data, builds the network and checks every option, before any training.

    Returns:
      The task, whose network has the initial channels, and the budget in MACs.
    """
    _check_options(config)
    dataset = dataset_of(config.data)
    net, budget = initial_network(config, dataset)
    limits = config.reallocate
    fit_to_budget(net, net.channels, budget, limits.min_channels, limits.channel_multiple)
    batch_sizes = {
        "eval_batch_size": config.eval_batch_size,
        "furs.batch_size": config.furs.batch_size,
        "train.batch_size": config.train.batch_size,
        "final.train.batch_size": config.final.train.batch_size,
    }
    devices = set_up(config.cpu_devices, batch_sizes.values())
    for option, size in batch_sizes.items():
        check_batch_size(option, size, len(devices))
    recipe_of(config.train).check("train", dataset.train)
    recipe_of(config.final.train).check("final.train", final_split(config, dataset))
    dtype = resolve_dtype(config.dtype)
    return Task(net, dataset, devices, dtype, config.eval_batch_size), budget


def initial_network(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[Network, int]:
    """The original network and its budget in MACs.

    Without `flops_budget` the budget is what the network of `width_multiplier` costs. With it, the
    original is the widest uniform network within the budget, brought up to it by single channels,
    so that original and searched spend the same.
    """

    def build(width_multiplier: float) -> Network:
        return get_network(
            config.network,
            width_multiplier,
            dataset.num_classes,
            config.padding,
            dataset.image_shape,
        )

    if config.flops_budget is None:
        net = build(config.width_multiplier)
        return net, net.macs(net.channels)
    budget = int(config.flops_budget)
    net = _widest_within(build, budget)
    channels = fit_to_budget(net, net.channels, budget, min_channels=1)
    return dataclasses.replace(net, template=net.module(channels)), budget


def _widest_within(build, budget: int) -> Network:
    """The network of the largest width multiplier, in steps of 1/1024, within the budget."""

    def fits(width: int) -> bool:
        net = build(width / 1024)
        return net.macs(net.channels) <= budget

    low = 128  # an eighth keeps 2 of 16 channels
    if not fits(low):
        net = build(low / 1024)
        raise BudgetError(
            f"flops_budget={budget:,} MACs is too small: {net.name} an eighth as wide needs "
            f"{net.macs(net.channels):,}; give at least that, or a smaller network"
        )
    high = 2 * low
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return build(low / 1024)


def _check_options(config: ml_collections.ConfigDict) -> None:
    if config.flops_budget is not None and config.width_multiplier != 1.0:
        raise ConfigError(
            "flops_budget sets the width of the original network, so width_multiplier must stay 1"
        )
    estimator = config.furs
    furs_lib.check_options(
        estimator.method,
        estimator.metric,
        estimator.base_drop_rate,
        estimator.draws,
        estimator.noise,
        estimator.fisher_labels,
    )
    if config.search.select not in SELECTIONS:
        raise ConfigError(f"search.select={config.search.select!r} must be one of {SELECTIONS}")
    for option, value, lowest in (
        ("search.rounds", config.search.rounds, 1),
        ("final.seeds", config.final.seeds, 1),
        ("furs.images", config.furs.images, 0),
        ("reallocate.num_layers", config.reallocate.num_layers, 0),
        ("reallocate.min_channels", config.reallocate.min_channels, 1),
        ("reallocate.channel_multiple", config.reallocate.channel_multiple, 1),
        ("reallocate.step", config.reallocate.step, 0),
        ("width_multiplier", config.width_multiplier, 1 / 64),
    ):
        if value < lowest:
            raise ConfigError(f"{option}={value} must be at least {lowest:g}")


def final_split(config: ml_collections.ConfigDict, dataset: Dataset) -> AnySplit:
    return dataset.train_and_search if config.final.use_search_split else dataset.train


def dataset_of(options: ml_collections.ConfigDict) -> Dataset:
    return load_dataset(
        options.name,
        options.search_fraction,
        options.search_split,
        options.seed,
        options.dir,
        Reading(**{field.name: options[field.name] for field in dataclasses.fields(Reading)}),
    )


def recipe_of(options: ml_collections.ConfigDict) -> Recipe:
    return Recipe(**options.to_dict())
