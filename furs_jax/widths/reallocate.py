"""The next channel vector: move channels from the worst sites to the best, and keep the budget.

Chen et al., CVPR 2020, section 3.3 and algorithm 1. Pure functions on tuples of integers.
"""

import math
from collections.abc import Sequence

import numpy as np

from furs_jax.costs import Cost
from furs_jax.errors import ConfigError
from furs_jax.networks.searchable import Searchable
from furs_jax.widths.budget import Channels, fit_to_budget, width_ends
from furs_jax.widths.sites import choose_sites


def reallocate(
    net: Searchable,
    channels: Sequence[int],
    furs: Sequence[float],
    *,
    initial: Sequence[int],
    budget: float,
    num_layers: int,
    step: float,
    step_decay: float = 0.0,
    min_channels: int | Sequence[int] = 4,
    channel_multiple: int | Sequence[int] = 1,
    cost: Cost | None = None,
    max_channels: float | Sequence[float] = math.inf,
    depths: Sequence[int] | None = None,
) -> Channels:
    """The next channel vector, within the budget.

    Args:
      net: the network.
      channels: the current vector, length L.
      furs: FLOPs utilisation ratio of each site, length L.
      initial: the vector that steps are relative to: that of the original network.
      budget: of `cost`; the result may not exceed it, nor the limits of `cost`.
      num_layers: K, sites changed each way; 0 changes nothing.
      step: the i-th best site grows, the i-th worst shrinks, by
        max(step - i * step_decay, 0) * initial[site] channels, rounded.
      step_decay: see step.
      min_channels, max_channels: no site gets narrower or wider; of all or each, length L. One
        that may have a single width is not chosen.
      channel_multiple: widths are multiples of it, of all sites or of each; where it is above one
        a chosen site moves by at least one.
      cost: what the budget is counted in; by default MACs.
      depths: blocks in each stage of the network that the result is of, where they change, too.

    Returns:
      The vector: see `fit_to_budget` for how close to the budget it comes.

    Raises:
      BudgetError: no vector meets the budget.
      ConfigError: FURs that are not finite, or not one for each site.
    """
    _check_lengths(channels, furs, initial)
    moves_blocks = depths is not None and tuple(depths) != net.depths
    if num_layers == 0 and not moves_blocks:
        return tuple(int(c) for c in channels)
    moved = move_channels(
        channels,
        *choose_sites(furs, num_layers, still_sites(min_channels, max_channels)),
        initial=initial,
        step=step,
        step_decay=step_decay,
        min_channels=min_channels,
        max_channels=max_channels,
        channel_multiple=channel_multiple,
    )
    if moves_blocks:
        bounds = (min_channels, max_channels, channel_multiple)
        bounds = (np.broadcast_to(own, len(moved)).tolist() for own in bounds)
        min_channels, max_channels, channel_multiple = (net.resized(x, depths) for x in bounds)
        moved, net = net.resized(moved, depths), net.with_depths(depths)
        cost = cost and cost.on(net)
    return fit_to_budget(
        net, moved, budget, min_channels, channel_multiple, cost, max_channels=max_channels
    )


def still_sites(
    min_channels: int | Sequence[int], max_channels: float | Sequence[float]
) -> set[int]:
    """The sites that may have a single width."""
    same = np.asarray(min_channels) >= np.asarray(max_channels)
    return set(np.flatnonzero(same).tolist()) if same.ndim else set()


def move_channels(
    channels: Sequence[int],
    increased: Sequence[int],
    decreased: Sequence[int],
    *,
    initial: Sequence[int],
    step: float,
    step_decay: float,
    min_channels: int | Sequence[int],
    channel_multiple: int | Sequence[int],
    max_channels: float | Sequence[float] = math.inf,
) -> Channels:
    """The step of `reallocate` before the return to the budget: only the chosen sites move."""
    moved = np.array(channels, dtype=int)
    floors, ceilings = width_ends(len(moved), min_channels, max_channels, channel_multiple)
    multiples = np.broadcast_to(channel_multiple, len(moved)).tolist()
    for sites, sign in ((increased, 1), (decreased, -1)):
        for place, site in enumerate(sites):
            share, unit = max(step - place * step_decay, 0.0), multiples[site]
            units = round(share * initial[site] / unit)
            if unit > 1 and share > 0:
                units = max(units, 1)  # a coarse multiple must not freeze a layer
            # A site that starts below the floor is not pushed up by being narrowed.
            lowest, highest = min(floors[site], moved[site]), max(ceilings[site], moved[site])
            moved[site] = np.clip(moved[site] + sign * units * unit, lowest, highest)
    return tuple(moved.tolist())


def _check_lengths(*vectors: Sequence) -> None:
    if len({len(vector) for vector in vectors}) != 1:
        lengths = ", ".join(str(len(vector)) for vector in vectors)
        raise ConfigError(f"channels, furs and initial must be equally long, not {lengths}")
