"""What whole networks take, by what their layers do: the fit, and what it is judged by."""

import types

import numpy as np
import pytest

from furs_jax.bench.whole_networks import errors_of, fitted, random_vectors


def test_the_fit_finds_constant_and_factor():
    x = np.random.default_rng(0).uniform(1, 9, 10)
    assert fitted(x, 3 + 0.5 * x) == pytest.approx((3, 0.5))
    assert min(fitted(x, 5 - 0.1 * x)) >= 0
    # Relative errors count, whatever the unit.
    assert fitted(1e9 * x, 3 + 0.5 * x) == pytest.approx((3, 0.5e-9))
    two = np.array([1.0, 100.0])
    constant, factor = fitted(np.array([1.0, 1.0]), two)
    assert np.sum((constant + factor) / two - 1) == pytest.approx(-0.98, abs=0.02)


def test_errors_are_relative_to_what_is_measured():
    measured = np.array([1.0, 2.0, 4.0])
    found = errors_of(np.array([1.1, 1.6, 4.0]), measured)
    assert found.mean == pytest.approx(0.1)
    assert found.largest == pytest.approx(0.2)
    assert found.spearman == 1
    assert errors_of(-measured, measured).spearman == -1


def test_networks_to_judge_by_are_on_the_grid_and_of_all_sizes():
    table = types.SimpleNamespace(units=(4, 8, 1), widest=(32, 64, 10))
    vectors = np.array(list(random_vectors(np.random.default_rng(0), table, 200)))
    assert np.all(vectors % table.units == 0)
    assert np.all((vectors >= table.units) & (vectors <= table.widest))
    assert len(np.unique(vectors[:, 0])) == 8
    shares = (vectors / table.widest).mean(axis=1)
    assert shares.min() < 0.3 < 0.9 < shares.max()
