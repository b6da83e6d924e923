"""The next channel vector: move channels from the worst sites to the best, and keep the budget.

Chen et al., CVPR 2020, section 3.3 and algorithm 1. Pure functions on tuples of integers.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks import Network
from furs_jax.networks.resources import marginal_macs

Channels = tuple[int, ...]

TOLERANCE = 0.001  # share of the budget that may stay unused
_MOST = 2**53  # MACs; doubles count no further
# Shares of its width that a site may lose for others to use up the budget, or two units: a larger
# one where the tolerance is not met with less.
_REACH = (0.25, 0.5)
_SHORTLIST = 256  # changes whose MACs are computed exactly, the most promising of their kind


def choose_sites(furs: Sequence[float], num_layers: int) -> tuple[list[int], list[int]]:
    """The sites to widen (highest FUR first) and to narrow (lowest first).

    At most half of the sites each way, so that no site is in both; a tie goes to the lower index.

    Raises:
      ConfigError: a FUR is not finite.
    """
    furs = np.asarray(furs, float)
    if not np.all(np.isfinite(furs)):
        raise ConfigError(f"FURs must be finite to reallocate by them, not {furs.tolist()}")
    count = min(num_layers, len(furs) // 2)
    increased = np.argsort(-furs, kind="stable")[:count].tolist()
    ascending = np.argsort(furs, kind="stable").tolist()
    decreased = [site for site in ascending if site not in increased][:count]
    return increased, decreased


def directed(furs: Sequence[float], direction: str, seed: int) -> np.ndarray:
    """What the sites are ranked by, shape (L,): the FURs, or what a control puts in their place.

    Args:
      furs: shape (L,).
      direction: "fur": as they are. "random": a random order. "reversed": the worst first. A
        method that does not beat "random" has shown nothing.
      seed: of "random".
    """
    if direction == "random":
        return np.random.default_rng(seed).permutation(len(furs)).astype(float)
    return np.asarray(furs, float) * (-1 if direction == "reversed" else 1)


def reallocate(
    net: Network,
    channels: Sequence[int],
    furs: Sequence[float],
    *,
    initial: Sequence[int],
    budget: int,
    num_layers: int,
    step: float,
    step_decay: float = 0.0,
    min_channels: int = 4,
    channel_multiple: int = 1,
) -> Channels:
    """The next channel vector, within the budget.

    Args:
      net: the network.
      channels: the current vector, length L.
      furs: FLOPs utilisation ratio of each site, length L.
      initial: the vector that steps are relative to: that of the original network.
      budget: MACs that the result may not exceed.
      num_layers: K, sites changed each way; 0 changes nothing.
      step: the i-th best site grows, the i-th worst shrinks, by
        max(step - i * step_decay, 0) * initial[site] channels, rounded.
      step_decay: see step.
      min_channels: no site gets narrower.
      channel_multiple: all widths are multiples of it; a chosen site then moves by at least one.

    Returns:
      The vector: see `fit_to_budget` for how close to the budget it comes.

    Raises:
      BudgetError: no vector meets the budget.
      ConfigError: FURs that are not finite, or not one for each site.
    """
    _check_lengths(channels, furs, initial)
    if num_layers == 0:
        return tuple(int(c) for c in channels)
    moved = move_channels(
        channels,
        *choose_sites(furs, num_layers),
        initial=initial,
        step=step,
        step_decay=step_decay,
        min_channels=min_channels,
        channel_multiple=channel_multiple,
    )
    return fit_to_budget(net, moved, budget, min_channels, channel_multiple)


def move_channels(
    channels: Sequence[int],
    increased: Sequence[int],
    decreased: Sequence[int],
    *,
    initial: Sequence[int],
    step: float,
    step_decay: float,
    min_channels: int,
    channel_multiple: int,
) -> Channels:
    """The step of `reallocate` before the return to the budget: only the chosen sites move."""
    moved = np.array(channels, dtype=int)
    floor = _floor(min_channels, channel_multiple)
    for sites, sign in ((increased, 1), (decreased, -1)):
        for place, site in enumerate(sites):
            share = max(step - place * step_decay, 0.0)
            units = round(share * initial[site] / channel_multiple)
            if channel_multiple > 1 and share > 0:
                units = max(units, 1)  # a coarse multiple must not freeze a layer
            # A site that starts below the floor is not pushed up by being narrowed.
            lowest = min(floor, moved[site])
            moved[site] = max(moved[site] + sign * units * channel_multiple, lowest)
    return tuple(moved.tolist())


def fit_to_budget(
    net: Network,
    channels: Sequence[int],
    budget: int,
    min_channels: int = 4,
    channel_multiple: int = 1,
) -> Channels:
    """Scales all sites by one factor, then takes single steps, to come close below the budget.

    No site loses more than half its width then, or two steps, so that none starves.

    Args:
      net: the network.
      channels: the vector whose proportions are kept.
      budget: MACs; the result never exceeds them.
      min_channels, channel_multiple: see `reallocate`.

    Returns:
      A vector with 0 <= (budget - MACs) / budget <= TOLERANCE, or, where widths are too coarse
      for that, one that none of the most promising changes by one unit at a few sites at once
      brings closer without narrowing one too far.

    Raises:
      BudgetError: the narrowest network exceeds the budget, or nothing can count so many MACs.
      ConfigError: the network can't be built with all multiples of channel_multiple.
    """
    if channel_multiple % net.multiple:
        raise ConfigError(
            f"{net.name} can be built with multiples of {net.multiple} channels only; give "
            f"reallocate.channel_multiple={net.multiple}"
        )
    if not budget <= _MOST:
        raise BudgetError(f"the budget of {budget:,} MACs is too large; give at most {_MOST:,}")
    target = np.array(channels, dtype=float)
    floor = _floor(min_channels, channel_multiple)
    narrowest = np.full(len(target), floor)
    if net.macs(narrowest) > budget:
        raise BudgetError(
            f"the budget of {budget:,} MACs can't be met: with {floor} channels at every site "
            f"{net.name} still needs {net.macs(narrowest):,}; give "
            f"{_way_to_budget(net, budget, min_channels, channel_multiple)}"
        )

    def scaled(factor: float) -> np.ndarray:
        units = np.floor(factor * target / channel_multiple + 0.5).astype(int)
        return np.maximum(units * channel_multiple, floor)

    vector = scaled(_largest_factor(lambda factor: net.macs(scaled(factor)) <= budget))
    nearest = vector
    for share in _REACH:  # proportions before the last MACs
        reach = np.maximum(share * vector, 2 * channel_multiple)
        lowest = np.maximum(vector - reach, floor)
        found = _filled(net, vector, budget, lowest, channel_multiple)
        if budget - net.macs(found) <= TOLERANCE * budget:
            return tuple(found.tolist())
        nearest = max(nearest, found, key=net.macs)
    return tuple(nearest.tolist())


def _filled(net, vector, budget, lowest, unit) -> np.ndarray:
    """The vector moved closer to the budget, a few single steps at a time."""
    while (gap := budget - net.macs(vector)) > TOLERANCE * budget:
        closer = _closer(net, vector, gap, budget, lowest, unit)
        if closer is None:
            break
        vector = closer
    return vector


def _way_to_budget(net: Network, budget: int, min_channels: int, channel_multiple: int) -> str:
    """What helps where the narrowest network exceeds the budget: each of what is named alone."""
    more = "a larger width_multiplier or flops_budget"

    def fits(min_channels: int, channel_multiple: int) -> bool:
        floor = _floor(min_channels, channel_multiple)
        return net.macs([floor] * len(net.channels)) <= budget

    smaller = {
        f"reallocate.channel_multiple (now {channel_multiple})": (min_channels, net.multiple),
        f"reallocate.min_channels (now {min_channels})": (1, channel_multiple),
    }
    helpful = [option for option, limits in smaller.items() if fits(*limits)]
    if helpful:
        return f"a smaller {' or '.join(helpful)}, {more}"
    if fits(1, net.multiple):
        return f"a smaller {' and '.join(smaller)}, {more}"
    return more


def _floor(min_channels: int, channel_multiple: int) -> int:
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


def _closer(net, vector, gap, budget, lowest, unit) -> np.ndarray | None:
    """The vector closest to the budget a few single steps away; None where none comes closer.

    Changes as few sites as come within the tolerance.
    """
    # MACs are nearly linear over one unit, so the marginal cost tells which changes to try.
    cost = marginal_macs(net.macs, vector) * unit
    best, best_gap = None, gap
    for changes in _candidates(len(vector)):
        changes = changes[np.all(vector + unit * changes >= lowest, axis=1)]
        promising = np.argsort(np.abs(gap - changes @ cost), kind="stable")[:_SHORTLIST]
        for change in changes[promising]:
            left = budget - net.macs(vector + unit * change)
            if 0 <= left < best_gap:
                best, best_gap = vector + unit * change, left
        if best_gap <= TOLERANCE * budget:
            break
    return best


def _candidates(length: int) -> Iterator[np.ndarray]:
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


def _check_lengths(*vectors: Sequence) -> None:
    if len({len(vector) for vector in vectors}) != 1:
        lengths = ", ".join(str(len(vector)) for vector in vectors)
        raise ConfigError(f"channels, furs and initial must be equally long, not {lengths}")
