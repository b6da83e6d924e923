"""Networks whose stages may have more blocks or fewer: the last one of a stage comes and goes.

The first block of a stage changes resolution or width, and stays. Those behind it are alike, so
that one more is like the one before it. Blocks keep their names, and so the sites theirs.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

_SITE = re.compile(r"(stage\d+_block)(\d+)(_\w+)")  # the name of a site in a block


def resized(
    values: Sequence[Any], per_block: Sequence[int], depths: Sequence[int], wanted: Sequence[int]
) -> tuple:
    """The values of a network with other numbers of blocks; a new block's are those before it.

    Args:
      values: one for each site, in order, or one for each block.
      per_block: how many of them a block of each stage has.
      depths: blocks in each stage that the values are of.
      wanted: blocks in each stage.
    """
    found: list[Any] = []
    place = 0
    for count, old, new in zip(per_block, depths, wanted, strict=True):
        stage = values[place : place + count * old]
        found += [*stage[: count * new], *stage[-count:] * max(new - old, 0)]
        place += count * old
    return tuple(found)


def sites_at(names: Sequence[str], depths: Sequence[int]) -> list[str]:
    """The sites of a network with other numbers of blocks, by the names of its own.

    Raises:
      ValueError: they are of no blocks, or of other stages.
    """
    parts, found = [match.groups() for match in map(_SITE.fullmatch, names) if match], []
    if len(parts) < len(names):
        raise ValueError(f"{', '.join(names)} are no sites of blocks")
    stages = itertools.groupby(parts, key=lambda part: part[0])
    for (stage, own), depth in zip(stages, depths, strict=True):
        *_, last = ([layer for *_, layer in b] for _, b in itertools.groupby(own, lambda p: p[1]))
        found += [f"{stage}{n + 1}{layer}" for n in range(depth) for layer in last]
    return found
