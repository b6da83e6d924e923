"""Which stage gets a block and which loses one: pure functions of ratios, costs and numbers.

A stage's ratio is that of its last block, as measured by dropping its residual branch: of the block
that would go, and what is known best of one that would come. One that came as the identity, among
weights that were inherited, has learnt too little to tell: those before it are looked at.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from furs_jax.costs import Cost
from furs_jax.networks.network import Network


def changed(depths: Sequence[int], gains: int | None, loses: int | None) -> tuple[int, ...]:
    """With a block more in one stage and a block less in another, each where there is one."""
    return tuple(n + (stage == gains) - (stage == loses) for stage, n in enumerate(depths))


def last_branches(net: Network, known: Sequence[int] | None = None) -> dict[int, int]:
    """Of each stage's last block the site whose gate drops the residual branch, by stage.

    Stages are left out where that gate covers the shortcut, too: it is a projection, there is none,
    or the sum is as wide as the branch alone (padding="local").

    Args:
      net: the network.
      known: how many of each stage's blocks are looked at, at most, the first ones; None: all.
    """
    joins, first, found = net.block_joins(), 0, {}
    for stage, depth in enumerate(net.depths):
        join = joins[first + min(depth, known[stage] if known else depth) - 1]
        if not join.gates_sum:
            found[stage] = join.site
        first += depth
    return found


def block_costs(
    net: Network, branches: Mapping[int, int], cost_of: Callable[[Network], Cost]
) -> np.ndarray:
    """What the block of each branch costs, float64; a stage's only one what another like it would.

    Args:
      net: with the vector in question as its own.
      branches: of `last_branches`.
      cost_of: the cost of a network's vectors.
    """
    own, costs = cost_of(net).of(net.channels), []
    blocks = [name.rpartition("_")[0] for name in net.site_names]
    for stage, site in branches.items():
        if net.depths[stage] == 1:
            other = net.with_depths(changed(net.depths, stage, None))
        else:
            left = [c for b, c in zip(blocks, net.channels, strict=True) if b != blocks[site]]
            other = net.with_depths(changed(net.depths, None, stage)).of(left)
        costs.append(abs(cost_of(other).of(other.channels) - own))
    return np.array(costs, dtype=float)


def choose_stages(
    ranks: Sequence[float | None],
    apart: Sequence[Sequence[float]],
    depths: Sequence[int],
    needed: float,
    gained: Collection[int] = (),
    lost: Collection[int] = (),
) -> tuple[int, int] | None:
    """The stage that gets a block and the one that loses one; None where nothing is sure.

    Args:
      ranks: of each stage, by what it is ranked; None of those that were not measured.
      apart: of every two measured stages' ratios, in standard errors, in order.
      depths: blocks in each stage: the first one stays.
      needed: standard errors from which on two ratios are different.
      gained, lost: stages that have before. One does not lose what it has gained, nor the other way
        round: of fewer blocks the last one gives more, so that they would come and go for ever.
    """
    stages = [stage for stage, rank in enumerate(ranks) if rank is not None]
    takers = [stage for stage in stages if stage not in lost]
    if not takers:
        return None
    best = max(takers, key=lambda stage: ranks[stage])
    givers = [s for s in stages if s != best and s not in gained and depths[s] > 1]
    if not givers:
        return None
    worst = min(givers, key=lambda stage: ranks[stage])
    difference = apart[stages.index(best)][stages.index(worst)]
    return (best, worst) if abs(difference) > needed else None
