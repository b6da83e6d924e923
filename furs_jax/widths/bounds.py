"""The widths that each site may have, as `config.reallocate` says them by name."""

import fnmatch
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from furs_jax.costs import Cost
from furs_jax.errors import ConfigError
from furs_jax.networks.network import Network
from furs_jax.options.kinds import named_widths
from furs_jax.options.schema import ReallocateOptions


class Bounds(NamedTuple):
    """Keyword arguments of `fit_to_budget` and `reallocate`: `**bounds._asdict()`."""

    min_channels: tuple[int, ...]  # of each site, length L
    max_channels: tuple[float, ...]  # inf where nothing bounds it
    channel_multiple: int | tuple[int, ...]  # of all sites, or of each

    def hold(self, channels: Sequence[int]) -> bool:
        """Whether a vector keeps to them; a site whose width stays need not be a multiple."""
        low, high, units = np.broadcast_arrays(*self)
        single = low == high
        kept = (low <= channels) & (channels <= high) & (single | (channels % units == 0))
        return bool(np.all(kept))

    def at(self, net: Network, depths: Sequence[int]) -> "Bounds":
        """Of the network with other numbers of blocks: of a new one those of the one before it."""
        ends = (np.broadcast_to(own, len(self.min_channels)).tolist() for own in self)
        return Bounds(*(net.resized(own, depths) for own in ends))


def known_widths(cost: Cost, multiple: int) -> tuple[int | tuple[int, ...], float | np.ndarray]:
    """Of which widths a cost and all its limits are known: multiples of what, and up to which.

    Each of all sites, or of each.

    Args:
      cost: of a network's vectors.
      multiple: what they must be multiples of besides.
    """
    units, widest = multiple, math.inf
    for one in cost.every():
        if (own := one.multiples()) is not None:
            units = tuple(np.lcm(units, own).tolist())
        if (own := one.widest()) is not None:
            widest = np.minimum(widest, own)
    return units, widest


def site_bounds(
    options: ReallocateOptions,
    net: Network,
    own: Sequence[int] | None = None,
    least: int = 0,
    cost: Cost | None = None,
) -> Bounds:
    """The bounds of a network's sites.

    Args:
      options: config.reallocate.
      net: the network.
      own: what fixed sites stay at; by default the network's own vector.
      least: in place of the part of min_channels that names no sites; 0: that.
      cost: to whose known widths, and its limits', they keep; None: to none.

    Raises:
      ConfigError: a name or pattern is no site's, or a site may have no width at all.
    """
    unit, own = options.channel_multiple, net.channels if own is None else own
    unit, known = known_widths(cost, unit) if cost else (unit, math.inf)
    low, high = [1] * len(own), np.broadcast_to(known, len(own)).tolist()
    for pattern, width in named_widths(options.min_channels):
        for site in _sites("min_channels", pattern, net):
            width = least if least and pattern == "*" else width
            low[site] = width
    for pattern, width in named_widths(options.max_channels) if options.max_channels else ():
        for site in _sites("max_channels", pattern, net):
            high[site] = min(high[site], width)
    for site in fixed_sites(options, net):
        low[site] = high[site] = own[site]
    units = np.broadcast_to(unit, len(own)).tolist()
    for site, (least, most, step) in enumerate(zip(low, high, units, strict=True)):
        if least != most and -(-least // step) * step > most:
            raise ConfigError(
                f"reallocate.min_channels={options.min_channels} and max_channels="
                f"{options.max_channels} leave no width for {net.site_names[site]} that is a "
                f"multiple of {step}" + (f" up to {most:g}" if np.any(np.isfinite(known)) else "")
            )
    return Bounds(tuple(low), tuple(high), unit)


def fixed_sites(options: ReallocateOptions, net: Network) -> set[int]:
    """The sites of `reallocate.fixed`.

    Raises:
      ConfigError: a name or pattern is no site's.
    """
    patterns = options.fixed.split(",") if options.fixed else ()
    return {site for p in patterns for site in _sites("fixed", p.strip(), net)}


def _sites(option: str, pattern: str, net: Network) -> Iterator[int]:
    names = net.site_names
    found = [site for site, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(
            f"reallocate.{option} names {pattern!r}, which is no site of {net.name}; they are "
            f"{', '.join(names)}"
        )
    yield from found
