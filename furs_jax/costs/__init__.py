"""What a channel vector costs: the seam. One file a cost, whose class is called `PLUGIN`.

The budget is counted in it, FURs are the accuracy per unit of it, and channels move at a constant
one. `config.cost` names the file, or a class of the user's own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from furs_jax import plugins
from furs_jax.networks.searchable import Searchable


class Cost:
    """The cost of a network's channel vectors; larger where a site is wider.

    Attributes:
      name: as in tables, "MACs".
      unit: of one of it, "MACs" or "ms".
      net: the network.
    """

    name: str
    unit: str

    def __init__(self, net: Searchable):
        self.net = net

    def of(self, channels: Sequence[int]) -> float:
        """The cost of a vector, in `unit`. A number for each site; none is below zero."""
        raise NotImplementedError

    def marginals(self, channels: Sequence[int]) -> np.ndarray:
        """Cost per channel of each site, dF_l = [F(c + e_l) - F(c - e_l)] / 2, float64, shape (L,).

        Chen et al., CVPR 2020, section 3.2, by central differences.
        """
        channels = np.asarray(channels)
        steps = np.eye(len(channels), dtype=int)
        return np.array([(self.of(channels + e) - self.of(channels - e)) / 2 for e in steps])

    def budget(self, given: float) -> float:
        """The budget that `flops_budget` stands for."""
        return given

    def record(self, channels: Sequence[int]) -> dict[str, Any]:
        """What a run's files hold of a vector's cost, beside its MACs."""
        return {"cost": self.of(channels), "unit": self.unit}


def amount(cost: float) -> str:
    """A cost: every digit of a whole number, five of another."""
    return f"{cost:,}" if isinstance(cost, int) else f"{cost:,.5g}"


def load_cost(name: str, net: Searchable) -> Cost:
    """The cost that `config.cost` names, of a network's vectors.

    Raises:
      ConfigError: there is none.
    """
    return plugins.behind(plugins.load("costs", name), Cost, f"cost={name!r}")(net)
