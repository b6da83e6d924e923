"""The widths that each site may have, as `config.reallocate` says them by name."""

import fnmatch
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from furs_jax.errors import ConfigError
from furs_jax.networks.network import Network
from furs_jax.options.kinds import named_widths
from furs_jax.options.schema import ReallocateOptions


class Bounds(NamedTuple):
    """Keyword arguments of `fit_to_budget` and `reallocate`: `**bounds._asdict()`."""

    min_channels: tuple[int, ...]  # of each site, length L
    max_channels: tuple[float, ...]  # inf where nothing bounds it
    channel_multiple: int

    def hold(self, channels: Sequence[int]) -> bool:
        """Whether a vector keeps to them; a site whose width stays need not be a multiple."""
        return all(
            low <= c <= high and (low == high or c % self.channel_multiple == 0)
            for low, c, high in zip(self.min_channels, channels, self.max_channels, strict=True)
        )

    def at(self, net: Network, depths: Sequence[int]) -> "Bounds":
        """Of the network with other numbers of blocks: of a new one those of the one before it."""
        low, high = (net.resized(own, depths) for own in (self.min_channels, self.max_channels))
        return self._replace(min_channels=low, max_channels=high)


def site_bounds(
    options: ReallocateOptions, net: Network, own: Sequence[int] | None = None, least: int = 0
) -> Bounds:
    """The bounds of a network's sites.

    Args:
      options: config.reallocate.
      net: the network.
      own: what fixed sites stay at; by default the network's own vector.
      least: in place of the part of min_channels that names no sites; 0: that.

    Raises:
      ConfigError: a name or pattern is no site's, or a site may have no width at all.
    """
    unit, own = options.channel_multiple, net.channels if own is None else own
    low, high = [1] * len(own), [math.inf] * len(own)
    for pattern, width in named_widths(options.min_channels):
        for site in _sites("min_channels", pattern, net):
            width = least if least and pattern == "*" else width
            low[site] = width
    for pattern, width in named_widths(options.max_channels) if options.max_channels else ():
        for site in _sites("max_channels", pattern, net):
            high[site] = width
    for site in fixed_sites(options, net):
        low[site] = high[site] = own[site]
    for name, narrowest, widest in zip(net.site_names, low, high, strict=True):
        if narrowest != widest and -(-narrowest // unit) * unit > widest:
            raise ConfigError(
                f"reallocate.min_channels={options.min_channels} and max_channels="
                f"{options.max_channels} leave no width for {name} that is a multiple of {unit}"
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
