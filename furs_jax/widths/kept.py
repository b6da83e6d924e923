"""How many filters each site keeps within a budget, by their order: integer exact."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from furs_jax.costs import Cost
from furs_jax.networks.filters import pruned_network
from furs_jax.networks.network import Network
from furs_jax.widths.budget import fit_to_budget

Ranks = Sequence[np.ndarray]  # of each site its channels, the first to be kept in front


def removed_within(
    net: Network,
    ranks: Ranks,
    budget: float,
    cost: Callable[[Network], Cost],
    least: int | Sequence[int] = 1,
    most: float | Sequence[float] = math.inf,
) -> list[np.ndarray]:
    """The channels of each site that are removed, for a network within the budget.

    One share for all sites is kept, as large as the budget allows, then single channels more or
    fewer bring it within `widths.budget.TOLERANCE`. Where the network itself is within budget and
    limits, nothing is removed.

    Args:
      net: the unpruned network.
      ranks: see above.
      budget: of the cost.
      cost: of a network's vectors.
      least, most: how many channels are kept of all sites, or of each.

    Raises:
      BudgetError: with the fewest channels at each site the network exceeds the budget.
    """
    own, most = cost(net), np.minimum(net.channels, most)
    if own.of(net.channels) <= budget and own.within(net.channels) and np.all(most >= net.channels):
        return [rank[:0] for rank in ranks]
    pruned = _Pruned(net, ranks, cost)
    widths = fit_to_budget(net, net.channels, budget, least, net.multiple, pruned, most)
    return pruned.removed(widths)


class _Pruned(Cost):
    """What is left of a network, where each site keeps so many of its channels."""

    def __init__(self, net: Network, ranks: Ranks, cost: Callable[[Network], Cost]):
        super().__init__(net)
        own = cost(net)
        self.name, self.unit = own.name, own.unit
        self._ranks, self._cost, self._known = ranks, cost, {}
        self.limits = tuple(
            limit._replace(cost=_Pruned(net, ranks, limit.cost.on)) for limit in own.limits
        )

    def removed(self, channels: Sequence[int]) -> list[np.ndarray]:
        """The channels that are not among the first of so many, in their order."""
        return [np.sort(own[c:]) for own, c in zip(self._ranks, channels, strict=True)]

    def of(self, channels: Sequence[int]) -> float:
        vector = tuple(map(int, channels))
        if vector not in self._known:
            small = pruned_network(self.net, self.removed(vector))
            self._known[vector] = self._cost(small).of(small.channels)
        return self._known[vector]

    def marginals(self, channels: Sequence[int]) -> np.ndarray:
        """Of the channel that comes next, or came last where all are there."""
        step, found = self.net.multiple, []
        for site, (c, most) in enumerate(zip(channels, self.net.channels, strict=True)):
            ends = (c, c + step) if c + step <= most else (c - step, c)
            low, high = ([*channels[:site], end, *channels[site + 1 :]] for end in ends)
            found.append((self.of(high) - self.of(low)) / step)
        return np.array(found)
