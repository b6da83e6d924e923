"""Intervals, against closed forms."""

import numpy as np
import pytest
from scipy import stats

from furs_jax.run.statistics import Interval, difference_interval, mean_interval


def test_intervals_match_student_and_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 5), rng.normal(0, 3, 7)
    low, high = stats.ttest_1samp(a, 0).confidence_interval(0.95)
    mean, half = mean_interval(a)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    mean, half = difference_interval(a, b)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_a_95_percent_interval_covers_in_95_percent_of_cases():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        mean, half = difference_interval(rng.normal(0.3, 1, 5), rng.normal(0, 2, 5))
        covered += abs(mean - 0.3) <= half
    assert 0.93 < covered / 2000 < 0.97


def test_one_seed_gives_no_interval():
    assert mean_interval([0.5]) == Interval(0.5, None)
    assert difference_interval([0.5], [0.25, 0.25]) == Interval(0.25, None)
    assert difference_interval([0.5, 0.5], [0.25, 0.25]) == Interval(0.25, 0.0)
    assert Interval(0.1234, None).format() == "12.34"
    assert Interval(0.1234, 0.01).format(sign=True) == "+12.34 ± 1.00"
