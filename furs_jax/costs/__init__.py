"""What a channel vector costs: the seam. One file a cost, whose class is called `PLUGIN`.

The budget is counted in it, FURs are the accuracy per unit of it, and channels move at a constant
one. `config.cost.resource` names the file, or a class of the user's own.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from furs_jax import plugins
from furs_jax.networks.counting import MacsModel
from furs_jax.networks.searchable import Searchable
from furs_jax.options.schema import CostOptions


class Cost:
    """The cost of a network's channel vectors; no smaller where a site is wider, but for stairs.

    Attributes:
      name: as in tables, "MACs".
      unit: of one of it, "MACs" or "ms".
      net: the network.
      batch_size: images of a forward pass, for what depends on it.
      table: a file or folder of measurements, for what is measured.
      limits: what vectors may cost in other resources.
      is_stepped: whether it is measured at some widths: it may stay, or fall, where a site gets
        wider, which is then taken. It needs `widest`.
      is_measured: whether it predicts what a clock tells, so that what is found is timed, too.
    """

    name: str
    unit: str
    batch_size: int = 1
    table: str | None = None
    limits: "tuple[Limit, ...]" = ()
    is_stepped: bool = False
    is_measured: bool = False

    def __init__(self, net: Searchable):
        self.net = net

    def of(self, channels: Sequence[int]) -> float:
        """The cost of a vector, in `unit`. A number for each site; none is below zero."""
        raise NotImplementedError

    def multiples(self) -> tuple[int, ...] | None:
        """Of each site what widths must be multiples of for the cost to be known; None: any."""
        return None

    def widest(self) -> tuple[float, ...] | None:
        """Of each site the widest width that the cost is known of; None: any."""
        return None

    def marginals(self, channels: Sequence[int]) -> np.ndarray:
        """Cost per channel of each site, dF_l = [F(c + e_l) - F(c - e_l)] / 2, float64, shape (L,).

        Chen et al., CVPR 2020, section 3.2, by central differences. Where only multiples are known,
        in steps of one of them from the nearest vector of such: one-sided at the ends, and zero
        where a site has a single one.
        """
        steps = self.multiples()
        at, low, high = np.asarray(channels), 0, math.inf
        if steps is not None:
            low, most = np.array(steps), self.widest()
            high = math.inf if most is None else np.floor(np.divide(most, low)) * low
            at = np.clip(np.round(at / low) * low, low, high).astype(int)
        found = []
        for step in np.diag(np.broadcast_to(1 if steps is None else steps, len(at))):
            below, above = np.maximum(at - step, low), np.minimum(at + step, high).astype(int)
            width = np.sum(above - below)
            found.append((self.of(above) - self.of(below)) / width if width else 0.0)
        return np.array(found, float)

    def smoothed(self, channels: Sequence[int]) -> np.ndarray:
        """Marginals to divide by, all above zero: those of FURs and drop rates, shape (L,).

        They are the marginals, unless a site may get wider at no cost.
        """
        return self.marginals(channels)

    def formula(self) -> MacsModel | None:
        """The same numbers, quick enough to ask for tens of thousands; None: there is none."""

    def budget(self, given: float) -> float:
        """The budget that a given number stands for."""
        return given

    def on(self, net: Searchable) -> Self:
        """This cost, with its limits, of another network's vectors."""
        other = type(self)(net)
        other.batch_size, other.table = self.batch_size, self.table
        other.limits = tuple(limit._replace(cost=limit.cost.on(net)) for limit in self.limits)
        return other

    def every(self) -> "tuple[Cost, ...]":
        """This cost and those that are limited beside it."""
        return (self, *(limit.cost for limit in self.limits))

    def within(self, channels: Sequence[int]) -> bool:
        """Whether a vector keeps to all limits."""
        return all(cost.of(channels) <= most for _, cost, most in self.limits)

    def check(self, device: str, dtype: str) -> None:
        """Refuses, before any compute, what the cost can't be told of.

        Args:
          device: what JAX calls the kind.
          dtype: of the computation.

        Raises:
          ConfigError: see above.
        """

    def digest(self) -> str | None:
        """Of the files that the cost follows from, besides the options; None: there are none."""

    def record(self, channels: Sequence[int]) -> dict[str, Any]:
        """What a run's files hold of a vector's cost, beside its MACs and parameters."""
        limits = {name: cost.of(channels) for name, cost, _ in self.limits}
        own = {} if self.unit == "MACs" else {"cost": self.of(channels), "unit": self.unit}
        return {**own, **({"limits": limits} if limits else {})}


class Limit(NamedTuple):
    """What vectors may cost at most in a resource."""

    resource: str  # as in config.cost.limits
    cost: Cost
    most: float


def load_cost(options: CostOptions, net: Searchable) -> Cost:
    """The cost of a network's vectors that `config.cost` says, with its limits.

    Raises:
      ConfigError: there is none.
    """

    def load(name: str) -> Cost:
        found = plugins.load("costs", name, "cost.resource")
        cost = plugins.behind(found, Cost, f"cost.resource={name!r}")(net)
        cost.batch_size, cost.table = options.batch_size, options.table
        return cost

    cost, given = load(options.resource), options.limits
    limits = [(name, getattr(given, name)) for name in plugins.names("costs")]
    cost.limits = tuple(Limit(name, load(name), most) for name, most in limits if most is not None)
    return cost
