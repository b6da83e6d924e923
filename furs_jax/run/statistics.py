"""Means with confidence intervals over few seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

# That an interval is shown of. Two give one of 12.7 standard errors, wider than any figure.
FEWEST_SEEDS = 3


class Interval(NamedTuple):
    """A mean and half the width of its 95 % confidence interval; one seed gives no interval."""

    mean: float
    half_width: float | None

    def format(self, scale: float = 100.0, sign: bool = False) -> str:
        """The mean in per cent, with its interval where there is one."""
        mean = f"{scale * self.mean:{'+' if sign else ''}.2f}"
        return mean if self.half_width is None else f"{mean} ± {scale * self.half_width:.2f}"


def shown(score: Interval, seeds: int) -> Interval:
    """What a reader gets to see of a score over so many seeds: of few no interval."""
    return score if seeds >= FEWEST_SEEDS else Interval(score.mean, None)


def score_text(score: Interval, seeds: Sequence[float]) -> str:
    """A score in per cent: the mean with its interval, or of few seeds every one's."""
    if len(seeds) >= FEWEST_SEEDS:
        return score.format()
    return ", ".join(f"{100 * seed:.2f}" for seed in seeds)


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of a mean."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Interval(mean, float(half))


def ratio_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Student's t interval of the mean of values / reference, paired."""
    return mean_interval(np.divide(values, reference))


def difference_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Welch's t interval of mean(values) - mean(reference), for unequal variances."""
    mean = float(np.mean(values) - np.mean(reference))
    if min(len(values), len(reference)) < 2:
        return Interval(mean, None)
    squared = [np.var(x, ddof=1) / len(x) for x in (values, reference)]
    if sum(squared) == 0:
        return Interval(mean, 0.0)
    freedom = sum(squared) ** 2 / sum(
        v**2 / (len(x) - 1) for v, x in zip(squared, (values, reference), strict=True)
    )
    return Interval(mean, float(stats.t.ppf(0.975, freedom) * np.sqrt(sum(squared))))
