"""The networks of a run and the vectors that it begins with, by its options."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from furs_jax.costs import Cost, load_cost
from furs_jax.data.dataset import Dataset
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.machine import hosts
from furs_jax.machine.sealed import unseal
from furs_jax.networks import get_network
from furs_jax.networks.network import Network
from furs_jax.options.kinds import Widths
from furs_jax.options.schema import MAX_WIDTH, Options
from furs_jax.options.units import amount
from furs_jax.training.loading import load_channels
from furs_jax.widths.bounds import known_widths, site_bounds
from furs_jax.widths.budget import TOLERANCE, fit_to_budget

_LARGEST_RESULT = 2**24  # bytes of a result.json; they have thousands
AS_GIVEN = ("train", "evaluate", "furs")  # modes without a budget


def initial_network(options: Options, dataset: Dataset) -> tuple[Cost, float]:
    """The cost of the original network's vectors, with the network, and the budget.

    Where none is given the budget is what the network of `width_multiplier` costs. Else the
    original is the widest uniform network within the budget, brought up to it by single channels,
    so that original and searched spend the same. Where the cost is known of some widths only, it is
    the one of these that comes closest to the proportions. Of the data set only the images' shape
    and the number of classes are looked at.
    """
    given = options.flops_budget if options.cost.budget is None else options.cost.budget

    def build(width_multiplier: float) -> Cost:
        return load_cost(options.cost, _network(options, dataset, width_multiplier))

    if given is None:
        cost = build(options.width_multiplier)
        return cost, cost.of(cost.net.channels)
    cost = build(1.0)
    budget = cost.budget(given)
    if cost.multiples() is None and cost.widest() is None:
        cost = _widest_within(build, budget)
    net = cost.net
    units, widest = known_widths(cost, net.multiple)
    unlimited = load_cost(options.cost, net)
    unlimited.limits = ()
    channels = fit_to_budget(net, net.channels, budget, 1, units, unlimited, widest)
    return load_cost(options.cost, net.of(channels)), budget


def _widest_within(build: Callable[[float], Cost], budget: float) -> Cost:
    """Of the network of the largest width multiplier, in steps of 1/1024, within the budget."""

    def fits(width: int) -> bool:
        cost = build(width / 1024)
        return cost.of(cost.net.channels) <= budget

    low = 128  # an eighth keeps 2 of 16 channels
    if not fits(low):
        cost = build(low / 1024)
        raise BudgetError(
            f"a budget of {amount(budget)} {cost.unit} is too small: {cost.net.name} an eighth as "
            f"wide needs {amount(cost.of(cost.net.channels))}; give at least that, or a smaller "
            "network"
        )
    high = 2 * low
    while fits(high):
        low, high = high, 2 * high
        if high > 1024 * MAX_WIDTH:
            cost = build(1.0)
            raise BudgetError(
                f"a budget of {amount(budget)} {cost.unit} is more than {cost.net.name} "
                f"{MAX_WIDTH} times as wide needs; give less, or a larger network"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return build(low / 1024)


def given_channels(options: Options, net: Network) -> tuple[int, ...] | None:
    """The vector of `channels`, `channels_from` or `init_from`; None where none is given.

    Raises:
      ConfigError: two of the first are given, a file holds no vector, or it has not one width of at
        least one channel for every site.
    """
    given = _given_channels(options, net)
    if given is None or (len(given) == len(net.channels) and Widths().allows(given)):
        return given
    raise ConfigError(
        f"channels={given} must be {len(net.channels)} widths, one for each site of {net.name}, "
        "whole numbers of at least 1"
    )


def _given_channels(options: Options, net: Network) -> tuple | None:
    if options.channels and options.channels_from:
        raise ConfigError("give channels or channels_from, not both")
    if options.channels:
        given = tuple(options.channels)
        return given * len(net.channels) if len(given) == 1 else given
    if options.channels_from:
        path = pathlib.Path(options.channels_from).expanduser()
        try:
            return tuple(hosts.from_first(lambda: _vector_of_result(path, net.depths)))
        except ConfigError as error:
            raise ConfigError(f"channels_from={options.channels_from} {error}") from error
    if options.init_from:
        return load_channels(options.init_from, net, "init_from")
    return None


def _vector_of_result(path: pathlib.Path, depths: tuple[int, ...]) -> list[int]:
    """The found or trained vector in a result.json.

    Raises:
      ConfigError: there is none, or its network has other blocks than `depths`; the message goes on
        where the path was named.
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
    told = next(entry.get("depths") for entry in entries if isinstance(entry, dict))
    if told is not None and told != list(depths):
        given = ",".join(map(str, told)) if isinstance(told, list) else told
        raise ConfigError(
            f"is of a network with {given} blocks in its stages; add --config.depths='({given})'"
        )
    return vectors[0]


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a name comes twice: {', '.join(key for key, _ in pairs)[:100]}")
    return found


def start_vector(options: Options, cost: Cost, budget: float) -> tuple[int, ...]:
    """The first round's vector: the given one brought to the budget, or the original's.

    Of the original, too, where that exceeds a limit or bounds of sites. In modes without a budget
    the given one as it is.

    Raises:
      ConfigError: see `given_channels`, or the network can't be built with it.
    """
    net = cost.net
    given = given_channels(options, net)
    if options.mode in AS_GIVEN:
        if given is None:
            return net.channels
        if any(c % net.multiple for c in given):
            raise ConfigError(
                f"channels={given}: {net.name} can be built with multiples of {net.multiple} only"
            )
        return given
    bounds = site_bounds(options.reallocate, net, given, cost=cost)
    if given is None and cost.within(net.channels) and _named_hold(options, net):
        return net.channels
    vector = net.channels if given is None else given
    allowed = bounds.hold(vector) and cost.within(vector)
    if allowed and 0 <= budget - cost.of(vector) <= TOLERANCE * budget:
        return vector  # another search's
    return fit_to_budget(net, vector, budget, cost=cost, **bounds._asdict())


def _named_hold(options: Options, net: Network) -> bool:
    """Whether the original has the widths that are asked for of sites by name."""
    bounds = site_bounds(options.reallocate, net, least=1)._replace(channel_multiple=1)
    return bounds.hold(net.channels)


def unpruned_network(options: Options, dataset: Dataset) -> Network:
    """The network that methods which prune begin with."""
    return _network(options, dataset, options.prune.width_multiplier)


def teacher_network(options: Options, dataset: Dataset) -> Network:
    """The network that `kd.teacher` holds a vector of."""
    kd = options.kd
    width_multiplier = kd.width_multiplier or options.width_multiplier
    return _network(options, dataset, width_multiplier, kd.network)


def _network(
    options: Options, dataset: Dataset, width_multiplier: float, name: str | None = None
) -> Network:
    """The run's network, or another by name, at a width, for the images and classes of the data."""
    net = get_network(
        name or options.network,
        width_multiplier,
        dataset.num_classes,
        options.padding,
        dataset.image_shape,
    )
    return net.with_depths(options.depths) if options.depths and name is None else net
