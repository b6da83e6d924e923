"""Greedy slimming: channels go, a group at a time, where the network suffers least.

AutoSlim (Yu & Huang, arXiv 1903.11728, algorithm 1). Pure functions on tuples of integers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Channels = tuple[int, ...]


class Removals(NamedTuple):
    """What greedy slimming has removed."""

    removed: tuple[int, ...]  # the sites, in order
    losses: tuple[float, ...]  # of the network after each removal
    channels: Channels  # what is left


def share_of(channels: Sequence[int], share: float, unit: int = 1) -> Channels:
    """`share` of each width, in multiples of `unit`, and at least one."""
    return tuple(max(round(share * c / unit), 1) * unit for c in channels)


def ladders(
    channels: Sequence[int], groups: int, floor: int | Sequence[int] = 1, unit: int = 1
) -> tuple[Channels, ...]:
    """The widths of each site, from its own down, by one of `groups` groups of channels at a time.

    Args:
      channels: the widest.
      groups: of a site; those that round to the same width are one.
      floor: no width is smaller, of all sites or of each, unless it is the site's own.
      unit: widths are multiples of it.
    """
    shares = [k / groups for k in range(groups, 0, -1)]
    steps = zip(*(share_of(channels, share, unit) for share in shares), strict=True)
    floors = [floor] * len(channels) if isinstance(floor, int) else floor
    return tuple(
        tuple(dict.fromkeys((own, *(min(max(c, least), own) for c in widths))))
        for own, least, widths in zip(channels, floors, steps, strict=True)
    )


def slim(
    steps: Sequence[Channels],
    losses: Callable[[Sequence[Channels]], Sequence[float]],
    fits: Callable[[Channels], bool],
    on_removal: Callable[[int, float], None] = lambda site, loss: None,
) -> Removals:
    """Goes down the ladders, each time at the site where the loss is lowest after, until it fits.

    Args:
      steps: from `ladders`; the lowest of all sites fit.
      losses: of some vectors; of equal ones the first is taken.
      fits: whether a vector is small enough.
      on_removal: told the site and the loss.
    """
    path = Removals((), (), tuple(widths[0] for widths in steps))
    while not fits(path.channels):
        candidates = _candidates(steps, path.channels)
        found = losses(list(candidates.values()))
        loss, place = min((value, place) for place, value in enumerate(found))
        site = list(candidates)[place]
        path = Removals((*path.removed, site), (*path.losses, loss), candidates[site])
        on_removal(site, loss)
    return path


def replay(steps: Sequence[Channels], removed: Sequence[int]) -> Channels:
    """What is left after these removals.

    Raises:
      ValueError: one can't be made.
    """
    channels = tuple(widths[0] for widths in steps)
    for site in removed:
        candidates = _candidates(steps, channels)
        if site not in candidates:
            raise ValueError(f"nothing is left to remove at site {site}")
        channels = candidates[site]
    return channels


def _candidates(steps: Sequence[Channels], channels: Channels) -> dict[int, Channels]:
    """site -> the vector after the removal of a group there."""
    found = {}
    for site, (widths, width) in enumerate(zip(steps, channels, strict=True)):
        place = widths.index(width) + 1
        if place < len(widths):
            found[site] = (*channels[:site], widths[place], *channels[site + 1 :])
    return found
