"""Wider at no cost: where a cost is stepped, it stays or falls where some sites get wider."""

from collections.abc import Iterator, Sequence

import numpy as np

from furs_jax.costs import Cost


def widened(
    cost: Cost,
    vector: np.ndarray,
    highest: np.ndarray,
    unit: np.ndarray,
    channels: Sequence[float],
) -> np.ndarray:
    """The vector within limits of which no site can be made wider at no cost, int, shape (L,).

    Of what is free the cheapest is taken first, then what is narrowest beside `channels`.

    Args:
      cost: stepped.
      vector: within its limits, int, shape (L,).
      highest, unit: how wide each site may be, finite, and in which steps.
      channels: the proportions.
    """

    def rank(wider: np.ndarray) -> tuple[float, float]:
        return cost.of(wider), np.max(np.where(wider > vector, wider / channels, 0))

    while True:
        now = cost.of(vector)
        free = [v for v in _wider(vector, highest, unit) if cost.of(v) <= now and cost.within(v)]
        if not free:
            return vector
        vector = min(free, key=rank)


def cheaper(
    cost: Cost, vector: np.ndarray, budget: float, highest: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    """The vector; where it exceeds budget or limits one with wider sites that exceeds less.

    Sites are widened one after the other, by what helps most; arguments as of `widened`.
    """

    def excess(of: np.ndarray) -> float:
        return max(cost.of(of) / budget, *(c.of(of) / most for _, c, most in cost.limits), 1.0)

    while (now := excess(vector)) > 1:
        wider = min(_wider(vector, highest, unit), key=excess, default=vector)
        if excess(wider) >= now:
            break
        vector = wider
    return vector


def _wider(vector: np.ndarray, highest: np.ndarray, unit: np.ndarray) -> Iterator[np.ndarray]:
    """All vectors with one of the sites wider."""
    units = np.broadcast_to(unit, len(vector)).tolist()
    for site, (width, high, step) in enumerate(zip(vector, highest, units, strict=True)):
        for wider in range(width + step, int(high) + 1, step):
            yield np.array([*vector[:site], wider, *vector[site + 1 :]])
