"""Means with confidence intervals over few seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean and half the width of its 95 % confidence interval; one seed gives no interval."""

    mean: float
    half_width: float | None

    def format(self, scale: float = 100.0, sign: bool = False) -> str:
        """The mean in per cent, with its interval where there is one."""
        mean = f"{scale * self.mean:{'+' if sign else ''}.2f}"
        return mean if self.half_width is None else f"{mean} ± {scale * self.half_width:.2f}"


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of a mean."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Interval(mean, float(half))


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
