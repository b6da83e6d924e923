"""Vectors that meet a budget: pure functions on tuples of integers."""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from furs_jax.costs import Cost, amount
from furs_jax.costs.macs import Macs
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks.searchable import Searchable

Channels = tuple[int, ...]

TOLERANCE = 0.001  # share of the budget that may stay unused
_MOST = 2**53  # MACs; doubles count no further
# Shares of its width that a site may lose for others to use up the budget, or two units: a larger
# one where the tolerance is not met with less.
_REACH = (0.25, 0.5)
_SHORTLIST = 256  # changes whose MACs are computed exactly, the most promising of their kind


def fit_to_budget(
    net: Searchable,
    channels: Sequence[int],
    budget: float,
    min_channels: int = 4,
    channel_multiple: int = 1,
    cost: Cost | None = None,
    widest: Sequence[int] | None = None,
) -> Channels:
    """Scales all sites by one factor, then takes single steps, to come close below the budget.

    No site loses more than half its width then, or two steps, so that none starves.

    Args:
      net: the network.
      channels: the vector whose proportions are kept.
      budget: of `cost`; the result never exceeds it.
      min_channels, channel_multiple: see `reallocate`.
      cost: by default MACs.
      widest: what no site exceeds, where the budget is below what `channels` cost.

    Returns:
      A vector with 0 <= (budget - cost) / budget <= TOLERANCE, or, where widths are too coarse
      for that, one that none of the most promising changes by one unit at a few sites at once
      brings closer without narrowing one too far.

    Raises:
      BudgetError: the narrowest network exceeds the budget, or nothing can count so much.
      ConfigError: the network can't be built with all multiples of channel_multiple.
    """
    cost = cost or Macs(net)
    if channel_multiple % net.multiple:
        raise ConfigError(
            f"{net.name} can be built with multiples of {net.multiple} channels only; give "
            f"reallocate.channel_multiple={net.multiple}"
        )
    if not budget <= _MOST:
        raise BudgetError(
            f"the budget of {amount(budget)} {cost.unit} is too large; give at most {_MOST:,}"
        )
    target = np.array(channels, dtype=float)
    floor = lowest_width(min_channels, channel_multiple)
    narrowest = np.full(len(target), floor)
    if cost.of(narrowest) > budget:
        raise BudgetError(
            f"the budget of {amount(budget)} {cost.unit} can't be met: with {floor} channels at "
            f"every site {net.name} still needs {amount(cost.of(narrowest))}; give "
            f"{_way_to_budget(cost, budget, min_channels, channel_multiple)}"
        )

    def scaled(factor: float) -> np.ndarray:
        units = np.floor(factor * target / channel_multiple + 0.5).astype(int)
        return np.maximum(units * channel_multiple, floor)

    vector = scaled(_largest_factor(lambda factor: cost.of(scaled(factor)) <= budget))
    nearest, highest = vector, np.inf if widest is None else np.asarray(widest)
    for share in _REACH:  # proportions before the last MACs
        reach = np.maximum(share * vector, 2 * channel_multiple)
        lowest = np.maximum(vector - reach, floor)
        found = _filled(cost, vector, budget, lowest, highest, channel_multiple)
        if budget - cost.of(found) <= TOLERANCE * budget:
            return tuple(found.tolist())
        nearest = max(nearest, found, key=cost.of)
    return tuple(nearest.tolist())


def _filled(cost, vector, budget, lowest, highest, unit) -> np.ndarray:
    """The vector moved closer to the budget, a few single steps at a time."""
    while (gap := budget - cost.of(vector)) > TOLERANCE * budget:
        closer = _closer(cost, vector, gap, budget, lowest, highest, unit)
        if closer is None:
            break
        vector = closer
    return vector


def _way_to_budget(cost: Cost, budget: float, min_channels: int, channel_multiple: int) -> str:
    """What helps where the narrowest network exceeds the budget: each of what is named alone."""
    more = "a larger width_multiplier or flops_budget"

    def fits(min_channels: int, channel_multiple: int) -> bool:
        floor = lowest_width(min_channels, channel_multiple)
        return cost.of([floor] * len(cost.net.channels)) <= budget

    smaller = {
        f"reallocate.channel_multiple (now {channel_multiple})": (min_channels, cost.net.multiple),
        f"reallocate.min_channels (now {min_channels})": (1, channel_multiple),
    }
    helpful = [option for option, limits in smaller.items() if fits(*limits)]
    if helpful:
        return f"a smaller {' or '.join(helpful)}, {more}"
    if fits(1, cost.net.multiple):
        return f"a smaller {' and '.join(smaller)}, {more}"
    return more


def lowest_width(min_channels: int, channel_multiple: int) -> int:
    return -(-min_channels // channel_multiple) * channel_multiple


def _largest_factor(fits) -> float:
    """The largest factor that fits, to double precision; `fits` is monotone and fits(0) holds."""
    if fits(1.0):
        low, high = 1.0, 2.0
        while fits(high):
            low, high = high, 2 * high
    else:
        low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _closer(cost, vector, gap, budget, lowest, highest, unit) -> np.ndarray | None:
    """The vector closest to the budget a few single steps away; None where none comes closer.

    Changes as few sites as come within the tolerance.
    """
    # Costs are nearly linear over one unit, so the marginal one tells which changes to try.
    marginal = cost.marginals(vector) * unit
    best, best_gap = None, gap
    for changes in unit_changes(len(vector)):
        changed = vector + unit * changes
        changes = changes[np.all((changed >= lowest) & (changed <= highest), axis=1)]
        promising = np.argsort(np.abs(gap - changes @ marginal), kind="stable")[:_SHORTLIST]
        for change in changes[promising]:
            left = budget - cost.of(vector + unit * change)
            if 0 <= left < best_gap:
                best, best_gap = vector + unit * change, left
        if best_gap <= TOLERANCE * budget:
            break
    return best


def unit_changes(length: int) -> Iterator[np.ndarray]:
    """Changes to try, those of fewer sites first; more at once where there are fewer sites."""
    most = 4 if length <= 12 else 3 if length <= 32 else 2
    for sites in range(1, min(most, length) + 1):
        yield _changes(length, sites)


@functools.cache
def _changes(length: int, sites: int) -> np.ndarray:
    """All vectors of `length` with `sites` entries of -1 or 1 and zeros elsewhere."""
    places = np.array(list(itertools.combinations(range(length), sites))).reshape(-1, sites)
    signs = np.array(list(itertools.product((1, -1), repeat=sites)))
    changes = np.zeros((len(places), len(signs), length), dtype=int)
    np.put_along_axis(changes, np.repeat(places[:, None], len(signs), axis=1), signs[None], axis=2)
    return changes.reshape(-1, length)
