"""What is checked and made ready before a run computes anything: data, network, budget, devices."""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from furs_jax.data import AnySplit, Dataset, Reading, Split, load_dataset
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.furs.estimate import Estimator
from furs_jax.machine import hosts
from furs_jax.machine.devices import resolve_dtype, set_up
from furs_jax.networks import Network, get_network
from furs_jax.options.kinds import Widths
from furs_jax.options.parse import check
from furs_jax.options.schema import FRESH, MAX_WIDTH
from furs_jax.run.folder import unseal
from furs_jax.training.distill import ORIGINAL
from furs_jax.training.loading import load_channels, load_network
from furs_jax.training.recipe import Recipe, check_recipe
from furs_jax.training.step import check_batch_size
from furs_jax.training.train import Task
from furs_jax.widths.inherit import free_axes
from furs_jax.widths.reallocate import TOLERANCE, fit_to_budget

_LARGEST_RESULT = 2**24  # bytes of a result.json; they have thousands
AS_GIVEN = ("train", "evaluate", "furs")  # modes without a budget


class Prepared(NamedTuple):
    """What a run starts from."""

    task: Task  # its network has the original's channels
    budget: int  # MACs
    start: tuple[int, ...]  # the first round's vector


def prepare(config: ml_collections.ConfigDict) -> Prepared:
    """Loads the data, builds the network and checks every option, before any training."""
    check_options(config)
    batch_sizes = {
        "eval_batch_size": config.eval_batch_size,
        "furs.batch_size": config.furs.batch_size,
        "train.batch_size": config.train.batch_size,
        "final.train.batch_size": config.final.train.batch_size,
    }
    # First, because weights that are given below are read onto a device.
    devices = set_up(config.cpu_devices, batch_sizes.values())
    dataset = dataset_of(config.data)
    splits = (dataset.train, dataset.search, dataset.test)
    hosts.agree("the data", [_digest(split) for split in splits])
    net, budget = initial_network(config, dataset)
    if config.mode not in AS_GIVEN:
        limits = config.reallocate
        fit_to_budget(net, net.channels, budget, limits.min_channels, limits.channel_multiple)
    start = start_vector(config, net, budget)
    _check_weights(config, net, start)
    if config.kd.teacher not in (None, ORIGINAL):
        teacher = teacher_network(config, dataset)
        load_network(config.kd.teacher, teacher, "kd.teacher", config.data.name)
    for option, size in batch_sizes.items():
        check_batch_size(option, size, len(devices))
    check_recipe(recipe_of(config.train), "train", dataset.train)
    if config.search.warm_start:
        check_recipe(warm_recipe(config), "search.warm", dataset.train)
        free_axes(net)  # refuses networks that can't inherit
    check_recipe(recipe_of(config.final.train), "final.train", final_split(config, dataset))
    images = len(dataset.search.labels)
    if config.mode in ("search", "furs") and min(images, config.furs.images or images) < 2:
        raise ConfigError(
            f"FURs need at least two images; furs.images={config.furs.images} of the {images} of "
            "the search split (data.search_fraction) are too few"
        )
    dtype = resolve_dtype(config.dtype)
    return Prepared(Task(net, dataset, devices, dtype, config.eval_batch_size), budget, start)


def _digest(split: AnySplit) -> int:
    """Of the labels, and of images in memory; those on disk are not read for it."""
    of_labels = zlib.crc32(split.labels.tobytes())
    return zlib.crc32(split.images.tobytes(), of_labels) if isinstance(split, Split) else of_labels


def _check_weights(config: ml_collections.ConfigDict, net: Network, start: Sequence[int]) -> None:
    """Raises ConfigError where a training can't begin with the weights of init_from."""
    if config.init_from is None or config.mode not in ("search", "train"):
        return
    way_on = "; give --config.init_head=fresh to begin with all its weights but the head's"
    channels, _ = load_network(
        config.init_from, net, "init_from", config.data.name, config.init_head, way_on
    )
    if channels != tuple(start):
        raise ConfigError(
            f"init_from={config.init_from} has channels {channels}, which are not those to train: "
            f"{start}. To take the checkpoint's leave channels and channels_from out, "
            "and give a search the checkpoint's MACs, by width_multiplier or flops_budget"
        )


def given_channels(config: ml_collections.ConfigDict, net: Network) -> tuple[int, ...] | None:
    """The vector of `channels`, `channels_from` or `init_from`; None where none is given.

    Raises:
      ConfigError: two of the first are given, a file holds no vector, or it has not one width of at
        least one channel for every site.
    """
    given = _given_channels(config, net)
    if given is None or (len(given) == len(net.channels) and Widths().allows(given)):
        return given
    raise ConfigError(
        f"channels={given} must be {len(net.channels)} widths, one for each site of {net.name}, "
        "whole numbers of at least 1"
    )


def _given_channels(config: ml_collections.ConfigDict, net: Network) -> tuple | None:
    if config.channels and config.channels_from:
        raise ConfigError("give channels or channels_from, not both")
    if config.channels:
        given = tuple(config.channels)
        return given * len(net.channels) if len(given) == 1 else given
    if config.channels_from:
        path = pathlib.Path(config.channels_from).expanduser()
        try:
            return tuple(hosts.from_first(lambda: _vector_of_result(path)))
        except ConfigError as error:
            raise ConfigError(f"channels_from={config.channels_from} {error}") from error
    if config.init_from:
        return load_channels(config.init_from, net, "init_from")
    return None


def _vector_of_result(path: pathlib.Path) -> list[int]:
    """The found or trained vector in a result.json.

    Raises:
      ConfigError: there is none; the message goes on where the path was named.
    """
    if path.is_dir():
        raise ConfigError("is a folder; give the result.json in it")
    if not path.is_file():
        raise ConfigError("is not there; give the result.json of a run")
    if path.stat().st_size > _LARGEST_RESULT:
        raise ConfigError(f"is no run's result.json: it has more than {_LARGEST_RESULT:,} bytes")
    try:
        text = path.read_bytes().decode()
        result = unseal(text)
        json.loads(text, object_pairs_hook=_unambiguous)
    except (OSError, ValueError) as error:
        raise ConfigError(f"is no run's result.json: {error}") from error
    entries = [result.get(key) for key in ("searched", "trained")]
    vectors = [entry.get("channels") for entry in entries if isinstance(entry, dict)]
    if not vectors:
        raise ConfigError('is no run\'s result.json: it has no "searched" or "trained" network')
    if not isinstance(vectors[0], list) or not Widths().allows(vectors[0]):
        raise ConfigError(f"is no run's result.json: its channels are not {Widths()}")
    return vectors[0]


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a name comes twice: {', '.join(key for key, _ in pairs)[:100]}")
    return found


def start_vector(config: ml_collections.ConfigDict, net: Network, budget: int) -> tuple[int, ...]:
    """The first round's vector: the given one brought to the budget, or the original's.

    In modes without a budget the given one as it is.

    Raises:
      ConfigError: see `given_channels`, or the network can't be built with it.
    """
    given = given_channels(config, net)
    if given is None:
        return net.channels
    if config.mode in AS_GIVEN:
        if any(c % net.multiple for c in given):
            raise ConfigError(
                f"channels={given}: {net.name} can be built with multiples of {net.multiple} only"
            )
        return given
    floor, multiple = config.reallocate.min_channels, config.reallocate.channel_multiple
    allowed = all(c >= floor and c % multiple == 0 for c in given)
    if allowed and 0 <= budget - net.macs(given) <= TOLERANCE * budget:
        return given  # another search's
    return fit_to_budget(net, given, budget, floor, multiple)


def initial_network(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[Network, int]:
    """The original network and its budget in MACs.

    Without `flops_budget` the budget is what the network of `width_multiplier` costs. With it, the
    original is the widest uniform network within the budget, brought up to it by single channels,
    so that original and searched spend the same. Of the data set only the images' shape and the
    number of classes are looked at.
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
    channels = fit_to_budget(net, net.channels, budget, 1, net.multiple)
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
        if high > 1024 * MAX_WIDTH:
            raise BudgetError(
                f"flops_budget={budget:,} MACs is more than {build(1.0).name} {MAX_WIDTH} times as "
                "wide needs; give less, or a larger network"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return build(low / 1024)


def check_options(config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError where an option can't have its value, alone or beside another."""
    check(config)
    if config.flops_budget is not None and config.width_multiplier != 1.0:
        raise ConfigError(
            "flops_budget sets the width of the original network, so width_multiplier must stay 1; "
            f"it is {config.width_multiplier:g} here: add --config.width_multiplier=1"
        )
    if config.init_head == FRESH and (
        config.init_from is None or config.mode in ("evaluate", "furs")
    ):
        raise ConfigError(
            "init_head=fresh is for trainings (mode=search or train) that begin with the weights "
            "of init_from"
        )
    estimator_of(config.furs).check()


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
        options.pool,
    )


def recipe_of(options: ml_collections.ConfigDict) -> Recipe:
    return Recipe(**options.to_dict())


def first_recipe(config: ml_collections.ConfigDict, options: ml_collections.ConfigDict) -> Recipe:
    """By `options`, of a training that begins with the weights of init_from where that is given."""
    recipe = recipe_of(options)
    return recipe.from_weights() if config.init_from else recipe


def teacher_network(config: ml_collections.ConfigDict, dataset: Dataset) -> Network:
    """The network that `kd.teacher` holds a vector of."""
    options = config.kd
    return get_network(
        options.network or config.network,
        options.width_multiplier or config.width_multiplier,
        dataset.num_classes,
        config.padding,
        dataset.image_shape,
    )


def estimator_of(options: ml_collections.ConfigDict) -> Estimator:
    return Estimator(**{field: options[field] for field in Estimator._fields})


def warm_recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Of the rounds that inherit weights."""
    return dataclasses.replace(
        recipe_of(config.train).from_weights(),
        epochs=config.search.warm_epochs,
        learning_rate=config.search.warm_learning_rate,
        warmup_epochs=0.0,
    )
