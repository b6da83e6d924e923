"""Vectors of whole numbers of channels within a budget, and the best of them by a surface.

First as if channels could be divided: where worth is highest, one more per cent of the cost is
worth the same at every site. Then channels go from site to site while that is better.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from furs_jax.costs import Cost
from furs_jax.costs.macs import Macs
from furs_jax.networks.counting import MacsModel
from furs_jax.networks.searchable import Searchable
from furs_jax.widths.budget import TOLERANCE, fit_to_budget, unit_changes, width_ends
from furs_jax.widths.worth.spaces import Channels, Space
from furs_jax.widths.worth.surface import features

# Times as wide as the reference or the centre, or as narrow: further a surface isn't to be trusted.
_REACH = 2.0
_ROUNDS = 30  # at most, in which costs are taken to be straight in the logarithms
_STARTS = (1.0, 0.99, 0.98)  # shares of the budget that channels are moved and added from
_SHORTLIST = 128  # better vectors whose cost is computed exactly, the best of them


class Whole(Space):
    """All vectors that cost no more than the budget.

    The best uses it up where widths are fine enough for that and more channels are worth
    something, and 98 % of it anyway, but for what the bounds of sites forbid.
    """

    def __init__(
        self,
        net: Searchable,
        budget: float,
        reference: Channels | None = None,
        cost: Cost | None = None,
        min_channels: int | Sequence[int] = 4,
        channel_multiple: int | Sequence[int] = 1,
        max_channels: float | Sequence[float] = math.inf,
        centre: Channels | None = None,
    ):
        """See `fit_to_budget`; the reference is by default the network's own vector.

        Args:
          centre: what is known to be about the best; by default the reference.
        """
        self._net, self._budget, self._cost = net, budget, _quick(cost or Macs(net))
        self._full = (1 - TOLERANCE) * budget
        self.reference = tuple(int(c) for c in reference or net.channels)
        self._limits = {
            "min_channels": min_channels,
            "channel_multiple": channel_multiple,
            "max_channels": max_channels,
        }
        own = np.asarray(self.reference)
        self._unit = unit = np.broadcast_to(channel_multiple, len(own))
        self.elasticities = self._slopes(own)
        floor, most = width_ends(len(own), min_channels, max_channels, unit)
        self._least = self._cost.of(floor)  # a share of the budget may be less
        ends = np.stack([own, own if centre is None else centre])
        low, high = np.min(ends, axis=0) / _REACH, np.max(ends, axis=0) * _REACH
        self._lowest = np.clip(np.ceil(low / unit) * unit, floor, most)
        self._highest = np.clip(np.floor(high / unit) * unit, self._lowest, most)

    def near(self, offsets: np.ndarray, share: float) -> Channels:
        target = self.reference * np.exp(offsets)
        budget = max(share * self._budget, min(self._least, self._budget))
        return fit_to_budget(self._net, target, budget, **self._limits, cost=self._cost)

    def best(self, worth: np.ndarray) -> Channels:
        far = self._equalised(worth)
        starts = {self._inside(far, share) for share in _STARTS}
        found = [self._improved(vector, worth) for vector in sorted(starts)]
        return found[int(np.argmax(self._values(found, worth)))]

    def nearly_best(self, worth: np.ndarray) -> Channels:
        return self._inside(self._equalised(worth), 1.0)

    def _values(self, vectors: Sequence[Channels], worth: np.ndarray) -> np.ndarray:
        return features(self.offsets(vectors)) @ worth

    def _inside(self, offsets: np.ndarray, share: float) -> Channels:
        """As `near`, within the bounds of all sites, too."""
        near = self.near(offsets, share)
        at = np.clip(near, self._lowest, self._highest).astype(int)
        while self._cost.of(at) > self._budget or not self._cost.within(at):
            if not np.any(free := at > self._lowest):
                return near  # budget and limits come before the bounds of what is trusted
            site = int(np.argmax(np.where(free, at / self._lowest, 0)))
            at[site] -= self._unit[site]
        return tuple(at.tolist())

    def _slopes(self, vector: np.ndarray) -> np.ndarray:
        """d log cost / d log width."""
        return self._cost.smoothed(vector) * vector / self._cost.of(vector)

    def _equalised(self, worth: np.ndarray) -> np.ndarray:
        """Log widths above the reference's where b - 2 q x is as steep as costs, at all sites."""
        slopes, curvatures = np.split(worth, 2)
        curvatures = np.maximum(curvatures, 1e-9)
        ends = np.log(np.stack([self._lowest, self._highest]) / self.reference)
        at, step, before = np.zeros(len(slopes)), 0.5, None
        for _ in range(_ROUNDS):
            vector = np.round(self.reference * np.exp(at) / self._unit) * self._unit
            vector = np.clip(vector, self._lowest, self._highest).astype(int)
            if np.array_equal(vector, before):
                break
            before = vector
            steep = self._slopes(vector)
            left = np.log(self._budget / self._cost.of(vector))
            left = left + steep @ np.log(vector / self.reference)  # of steep @ at
            low, high = np.clip(at + np.array([[-step], [step]]), *ends)
            at = _priced(slopes, curvatures, steep, left, low, high)
            step *= 0.85
        return at

    def _improved(self, vector: Channels, worth: np.ndarray) -> Channels:
        """The vector after all changes of few sites at once that are better and cost no more."""
        at = np.array(vector)
        least = min(self._cost.of(at), self._full)
        while (better := self._better(at, worth, least)) is not None:
            at = better
        return tuple(at.tolist())

    def _better(self, at, worth, least) -> np.ndarray | None:
        now = self._values([at], worth)[0]
        marginals = self._cost.marginals(at)
        spent, slack = self._cost.of(at), TOLERANCE * self._budget / 4
        limits = [
            (cost.marginals(at), most - cost.of(at) + TOLERANCE * most)
            for _, cost, most in self._cost.limits
        ]
        for changes in self._steps(at):
            vectors = at + changes
            about = spent + changes @ marginals
            kept = np.all((vectors >= self._lowest) & (vectors <= self._highest), axis=1)
            kept &= (about <= self._budget + slack) & (about >= least - slack)
            for slope, left in limits:
                kept &= changes @ slope <= left
            vectors = vectors[kept]
            values = self._values(vectors, worth)
            order = np.argsort(-values, kind="stable")[:_SHORTLIST]
            for place in order[values[order] > now + 1e-9 * max(abs(now), 1e-3)]:
                affordable = least <= self._cost.of(vectors[place]) <= self._budget
                if affordable and self._cost.within(vectors[place]):
                    return vectors[place]
        return None

    def _steps(self, at: np.ndarray) -> Iterator[np.ndarray]:
        """Changes to try, large ones of few sites first."""
        largest = max(int(np.max(at // (8 * self._unit))), 1)
        size = 2 ** int(np.log2(largest))
        while size > 1:
            for changes, _ in zip(unit_changes(len(at)), range(2), strict=False):
                yield size * self._unit * changes
            size //= 2
        for changes in unit_changes(len(at)):
            yield self._unit * changes


class _ByFormula(Cost):
    """A cost by its formula: tens of thousands are asked for."""

    def __init__(self, cost: Cost, formula: MacsModel):
        super().__init__(cost.net)
        self.name, self.unit, self._formula = cost.name, cost.unit, formula

    def of(self, channels: Sequence[int]) -> int:
        return self._formula(channels)


def _quick(cost: Cost) -> Cost:
    """The same cost, with its limits, faster where that is known how."""
    formula, own = cost.formula(), cost.net.channels
    known = formula is not None and formula(own) == cost.of(own)
    quick = _ByFormula(cost, formula) if known else copy.copy(cost)
    quick.limits = tuple(limit._replace(cost=_quick(limit.cost)) for limit in cost.limits)
    return quick


def _priced(slopes, curvatures, steep, left, low, high) -> np.ndarray:
    """Where slopes x - curvatures x^2 is highest with steep @ x <= left and low <= x <= high."""

    def at(price: float) -> np.ndarray:
        return np.clip((slopes - price * steep) / (2 * curvatures), low, high)

    return at(_price(lambda price: float(steep @ at(price) - left)))


def _price(excess: Callable[[float], float]) -> float:
    """The lowest price at which nothing is in excess, 0 or above; a high one if there is none."""
    low, high = 0.0, 1e-6
    if excess(low) <= 0:
        return low
    while excess(high) > 0 and high < 1e12:
        low, high = high, 4 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high
