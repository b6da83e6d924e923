"""Vectors that meet a budget: pure functions on tuples of integers."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from furs_jax.costs import Cost
from furs_jax.costs.macs import Macs
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks.searchable import Searchable
from furs_jax.options.units import amount, enough
from furs_jax.widths.edges import cheaper, widened

Channels = tuple[int, ...]

TOLERANCE = 0.001  # share of the budget that may stay unused
_MOST = 2**53  # MACs; doubles count no further
# Shares of its width that a site may lose for others to use up the budget, or two units: a larger
# one where the tolerance is not met with less.
_REACH = (0.25, 0.5)
_LEANINGS, _FARTHEST = 20, 0.5  # steps towards limits, and the longest, in logarithms of widths
_WIDEST = 2**40  # times as wide: beyond any network
_FACTORS = tuple(2.0 ** np.linspace(-8, 8, 257))  # tried first where cost is no monotone function
_SHORTLIST = 256  # changes whose MACs are computed exactly, the most promising of their kind


def fit_to_budget(
    net: Searchable,
    channels: Sequence[int],
    budget: float,
    min_channels: int | Sequence[int] = 4,
    channel_multiple: int | Sequence[int] = 1,
    cost: Cost | None = None,
    max_channels: float | Sequence[float] = math.inf,
) -> Channels:
    """Scales all sites by one factor, then takes single steps, to come close below the budget.

    No site loses more than half its width then, or two steps, so that none starves. Where a limit
    of the cost is in the way, sites are narrowed before by what they add to what is limited, and
    others widened, so that the budget is used up all the same as far as that can be.

    Where the cost is stepped, sites then get wider wherever that is free, to the edges of stairs,
    and with what that saves, if it does.

    Args:
      net: the network.
      channels: the vector whose proportions are kept.
      budget: of `cost`; the result never exceeds it, nor the limits of `cost`.
      min_channels, channel_multiple, max_channels: see `reallocate`.
      cost: by default MACs.

    Returns:
      A vector with 0 <= (budget - cost) / budget <= TOLERANCE, or, where widths are too coarse
      for that or limits or max_channels in the way, one that none of the most promising changes by
      one unit at a few sites at once brings closer without narrowing one too far. Of a stepped
      cost one that none of these brings closer which narrow nothing, and of which no site can be
      made wider at no cost.

    Raises:
      BudgetError: the narrowest network exceeds the budget or a limit (where one is stepped: all
        that were found by making sites wider), or nothing can count so much.
      ConfigError: the network can't be built with all multiples of channel_multiple, or a cost is
        stepped and max_channels bounds nothing.
    """
    cost, unit = cost or Macs(net), np.asarray(channel_multiple)
    if np.any(unit % net.multiple):
        raise ConfigError(
            f"{net.name} can be built with multiples of {net.multiple} channels only; give "
            f"reallocate.channel_multiple={net.multiple}"
        )
    floor, highest = _affordable_ends(
        cost, len(channels), budget, min_channels, max_channels, channel_multiple
    )
    own = np.array(channels, float)
    nearest = _in_proportion(cost, own, budget, floor, highest, unit)
    if cost.is_stepped:
        nearest = _to_edges(cost, nearest, budget, highest, unit, own)
    return tuple(nearest.tolist())


def _affordable_ends(
    cost, sites, budget, min_channels, max_channels, channel_multiple
) -> tuple[np.ndarray, np.ndarray]:
    """The narrowest and the widest of each site, of which the narrowest is within the budget.

    Raises BudgetError, or ConfigError of a stepped cost without bounds; see `fit_to_budget`.
    """
    if not budget <= _MOST:
        raise BudgetError(
            f"the budget of {amount(budget)} {cost.unit} is too large; give at most {_MOST:,}"
        )
    floor, highest = width_ends(sites, min_channels, max_channels, channel_multiple)
    if stepped := _is_stepped(cost):
        if not np.all(np.isfinite(highest)):
            raise ConfigError(
                f"{cost.name}, or what is limited, may not rise for ever: its class needs `widest` "
                "(furs_jax/costs/__init__.py)"
            )
        floor = cheaper(cost, floor, budget, highest, np.asarray(channel_multiple))
    _check_narrowest(cost, floor, budget, min_channels, channel_multiple, stepped)
    return floor, highest


def _is_stepped(cost: Cost) -> bool:
    return any(one.is_stepped for one in cost.every())


def _in_proportion(cost, channels, budget, floor, highest, unit) -> np.ndarray:
    """All sites scaled by one factor, leaning where limits ask for it, then single steps."""
    tried = _FACTORS if _is_stepped(cost) else (1.0,)

    def scaled(factor: float, target: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(factor * target / unit + 0.5) * unit, floor, highest).astype(int)

    def largest(target: np.ndarray, fits: Callable[[np.ndarray], bool]) -> np.ndarray:
        return scaled(_largest_factor(lambda factor: fits(scaled(factor, target)), tried), target)

    def affordable(vector: np.ndarray) -> bool:
        return cost.of(vector) <= budget

    def begun(tightness: float) -> np.ndarray:
        """In budget and limits, with no more leaning than limits tightened so much ask for."""
        free = floor < highest
        target = _leaning(cost, channels, free, tightness, lambda t: largest(t, affordable))
        return largest(target, lambda v: affordable(v) and cost.within(v))

    nearest = vector = begun(1.0)
    ways = [(vector, share) for share in _REACH]  # proportions before the last MACs
    if cost.limits and not cost.within(largest(channels, affordable)):
        ways += [(begun(0.98), share) for share in _REACH]
    for vector, share in ways:
        reach = np.maximum(share * vector, 2 * unit)
        lowest = np.maximum(vector - reach, floor)
        found = _filled(cost, vector, budget, lowest, highest, unit)
        if budget - cost.of(found) <= TOLERANCE * budget:
            return found
        nearest = max(nearest, found, key=cost.of)
    return nearest


def _filled(cost, vector, budget, lowest, highest, unit) -> np.ndarray:
    """The vector moved closer to the budget, a few single steps at a time."""
    while (gap := budget - cost.of(vector)) > TOLERANCE * budget:
        closer = _closer(cost, vector, gap, budget, lowest, highest, unit)
        if closer is None:
            break
        vector = closer
    return vector


def _to_edges(cost, vector, budget, highest, unit, channels) -> np.ndarray:
    """Wider wherever that is free, and with what that saves; nothing gets narrower."""
    while True:
        wider = widened(cost, vector, highest, unit, channels)
        vector = _filled(cost, wider, budget, wider, highest, unit)
        if vector is wider:
            return vector


def _leaning(
    cost: Cost,
    channels: np.ndarray,
    free: np.ndarray,
    tightness: float,
    within_budget: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Other proportions, float64 (L,), of which the vector in the budget keeps to the limits.

    The logarithms of the widths change as little as may be, in squares, by Newton's steps: along
    the difference of what a share of a site's width adds to the limited resource and to the budget,
    each as a share of what all sites add.
    """
    target = channels
    for _ in range(_LEANINGS):
        vector = within_budget(target)
        excess = [(c.of(vector) / (tightness * most), c) for _, c, most in cost.limits]
        over, limited = max(excess, key=lambda e: e[0], default=(0.0, cost))
        if over <= 1 or not free.any():
            break
        shares, of_budget = (
            c.smoothed(vector) * vector * free / c.of(vector) for c in (limited, cost)
        )
        direction = shares / shares.sum() - of_budget / of_budget.sum()
        if not (slope := shares.sum() * direction @ direction) > 1e-6:
            break  # they cost alike
        change = -np.log(over) / slope * direction
        target = target * np.exp(change / max(1, np.abs(change).max() / _FARTHEST))
    return target


def _check_narrowest(cost, narrowest, budget, min_channels, channel_multiple, stepped) -> None:
    """Raises BudgetError where the narrowest network exceeds the budget or a limit."""
    net, needed = cost.net, cost.of(narrowest)
    few = f"{narrowest[0]}" if len(set(narrowest.tolist())) == 1 else "the fewest"
    at = "at the cheapest widths found" if stepped else f"with {few} channels at every site"
    if needed > budget:
        raise BudgetError(
            f"the budget of {amount(budget)} {cost.unit} can't be met: {at} "
            f"{net.name} still needs {amount(needed)}; give "
            f"{_way_to_budget(cost, narrowest, budget, min_channels, channel_multiple)}"
        )
    for name, limited, most in cost.limits:
        if (needed := limited.of(narrowest)) > most:
            raise BudgetError(
                f"cost.limits.{name}={amount(most)} can't be kept: {at} {net.name} still "
                f"needs {amount(needed)} {limited.unit}; give at least "
                f"--config.cost.limits.{name}={enough(needed)}, or a smaller "
                "reallocate.min_channels"
            )


def _way_to_budget(cost, narrowest, budget, min_channels, channel_multiple) -> str:
    """What helps where the narrowest network exceeds the budget: each of what is named alone."""
    more = "a larger width_multiplier or budget"
    if np.ndim(min_channels) or np.ndim(channel_multiple):
        return f"smaller reallocate.min_channels, {more}"

    def fits(min_channels: int, channel_multiple: int) -> bool:
        floor = lowest_width(min_channels, channel_multiple)
        return cost.of(np.full_like(narrowest, floor)) <= budget

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


def width_ends(
    sites: int,
    min_channels: int | Sequence[int],
    max_channels: float | Sequence[float],
    channel_multiple: int | Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """The narrowest and the widest of each site's widths, shapes (sites,), int and float64.

    They are multiples, but for those of sites that may have one width only.
    """
    ends = (min_channels, max_channels, channel_multiple)
    low, high, unit = (np.broadcast_to(np.asarray(end), sites) for end in ends)
    lowest = -(-low // unit) * unit
    highest = np.where(low == high, high, np.floor(high / unit) * unit)
    return np.minimum(lowest, highest).astype(int), highest.astype(float)


def _largest_factor(fits, tried: Sequence[float]) -> float:
    """The largest factor that fits, to double precision, where `fits` is monotone.

    Else one that fits, below one that doesn't and above all that are tried first and fit, which are
    in order; fits(0) holds.
    """
    low = max((factor for factor in tried if fits(factor)), default=0.0)
    if low == tried[-1]:
        high = 2 * low
        while fits(high):
            if high > _WIDEST:  # no site can get wider
                return high
            low, high = high, 2 * high
    else:
        high = min(factor for factor in tried if factor > low)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _closer(cost, vector, gap, budget, lowest, highest, unit) -> np.ndarray | None:
    """The vector closest to the budget a few single steps away; None where none comes closer.

    Changes as few sites as come within the tolerance.
    """
    added, saved = _unit_costs(cost, vector, lowest, highest, unit)
    limits = [
        (*_unit_costs(c, vector, lowest, highest, unit), most - c.of(vector) + TOLERANCE * most)
        for _, c, most in cost.limits
    ]
    best, best_gap = None, gap
    for changes in unit_changes(len(vector)):
        changed = vector + unit * changes
        kept = np.all((changed >= lowest) & (changed <= highest), axis=1)
        if cost.is_stepped:
            # To be narrower and cost more brings closer, and is no gain.
            kept &= ~np.any((changes < 0) & (saved <= 0), axis=1)
        for up, down, slack in limits:
            kept &= _sums(changes, up, down) <= slack
        changes = changes[kept]
        left = np.abs(gap - _sums(changes, added, saved))
        promising = np.argsort(left, kind="stable")[:_SHORTLIST]
        for change in changes[promising]:
            left = budget - cost.of(vector + unit * change)
            if 0 <= left < best_gap and cost.within(vector + unit * change):
                best, best_gap = vector + unit * change, left
        if best_gap <= TOLERANCE * budget:
            break
    return best


def _unit_costs(cost, vector, lowest, highest, unit) -> tuple[np.ndarray, np.ndarray]:
    """What a unit more at each site adds, and one less saves, shapes (L,): tells what to try."""
    if not cost.is_stepped:  # nearly linear over one unit
        slopes = cost.marginals(vector) * unit
        return slopes, slopes
    now, steps = cost.of(vector), np.diag(np.broadcast_to(unit, len(vector)))
    wider, narrower = vector + steps, vector - steps
    added = [cost.of(v) - now if np.all(v <= highest) else 0.0 for v in wider]
    saved = [now - cost.of(v) if np.all(v >= lowest) else 0.0 for v in narrower]
    return np.array(added), np.array(saved)


def _sums(changes, added, saved) -> np.ndarray:
    """What changes add together, about, shape (N,)."""
    if added is saved:
        return changes @ added
    return np.maximum(changes, 0) @ added + np.minimum(changes, 0) @ saved


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
