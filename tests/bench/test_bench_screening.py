"""Screening designs: balance, exact recovery, standard errors, the test at equal MACs."""

import numpy as np
import pytest
from scipy import stats

from furs_jax.bench import screening


@pytest.mark.parametrize("sites", [1, 2, 3, 8, 12, 18])
def test_a_design_is_balanced_orthogonal_and_free_of_interactions(sites):
    signs = screening.design(sites)
    trainings = len(signs)
    assert 2 * sites <= trainings <= max(4 * sites, 2)
    assert len(np.unique(signs, axis=0)) == trainings
    np.testing.assert_array_equal(signs.sum(axis=0), 0)
    np.testing.assert_array_equal(signs.T @ signs, trainings * np.eye(sites))
    products = signs[:, :, None] * signs[:, None, :]
    np.testing.assert_array_equal(np.einsum("tl,tij->lij", signs, products), 0)


def test_widths_change_by_a_factor_and_at_least_one_channel():
    assert screening.changed((10, 10, 32, 2, 2, 1, 1), (1, -1, -1, 1, -1, 1, -1)) == (
        14, 7, 23, 3, 1, 2, 1,
    )  # fmt: skip
    assert screening.changed((16, 16, 4), (1, -1, -1), 4) == (24, 12, 4)


def _trainings(sites: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Log widths of all trainings, rounded as channels are, and their seeds."""
    channels = np.full(sites, 13)
    vectors = [screening.changed(channels, row) for row in screening.design(sites)]
    return np.log(vectors * seeds) - np.log(channels), np.repeat(np.arange(seeds), len(vectors))


def test_effects_are_recovered_exactly_from_a_linear_figure():
    widths, seeds = _trainings(12, 2)
    slopes = np.random.default_rng(0).normal(size=12)
    effects = screening.fit(widths, widths @ slopes + np.where(seeds, 5.0, -3.0), seeds)
    np.testing.assert_allclose(effects.slopes, slopes, atol=1e-12)
    assert effects.freedom == (2 - 1) * (32 - 1)  # errors between seeds
    assert screening.fit(widths[:32], widths[:32] @ slopes, seeds[:32]).freedom == 32 - 1 - 12
    assert np.all(effects.stderr() < 1e-12)


def test_standard_errors_are_those_of_many_repetitions():
    widths, seeds = _trainings(5, 1)
    rng = np.random.default_rng(1)
    found = [screening.fit(widths, rng.normal(size=len(seeds)), seeds) for _ in range(2000)]
    spread = np.std([effects.slopes for effects in found], axis=0)
    claimed = np.sqrt(np.mean([np.diag(effects.covariance) for effects in found], axis=0))
    np.testing.assert_allclose(claimed, spread, rtol=0.06)
    # What one site at a time gives for as many trainings, n / L of each: 2 sigma / sqrt(n / L).
    alone = 2 / np.sqrt(len(seeds) / 5) / np.ptp(widths, axis=0)
    np.testing.assert_allclose(spread, alone / np.sqrt(5), rtol=0.1)


@pytest.mark.parametrize(("repeats", "interaction"), [(1, 0.0), (2, 0.0), (2, 20.0)])
def test_noise_alone_looks_uneven_as_often_as_it_claims(repeats, interaction):
    """Several seeds tell noise from what two sites do together, which is the same in each."""
    widths, seeds = _trainings(6, repeats)
    shares = np.linspace(0.05, 0.3, 6)
    rng = np.random.default_rng(2)
    figure = 40 * widths @ shares + interaction * np.sign(widths[:, 0] * widths[:, 1])
    values = figure[None] + rng.normal(size=(1000, len(seeds)))
    chances = [screening.chance_of_even(screening.fit(widths, v, seeds), shares) for v in values]
    assert stats.kstest(chances, "uniform").pvalue > 0.01


def test_an_uneven_figure_is_seen():
    widths, seeds = _trainings(6, 1)
    shares = np.linspace(0.05, 0.3, 6)
    noise = np.random.default_rng(3).normal(scale=0.1, size=len(seeds))
    effects = screening.fit(widths, widths @ (shares + np.eye(6)[0]) + noise, seeds)
    assert screening.chance_of_even(effects, shares) < 1e-3


def test_predictions_cover_the_true_difference_as_often_as_they_claim():
    widths, seeds = _trainings(6, 1)
    slopes, step = np.arange(6.0), np.array([0.3, -0.2, 0.1, 0.0, -0.3, 0.2])
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        effects = screening.fit(widths, widths @ slopes + rng.normal(size=len(seeds)), seeds)
        mean, half = screening.predicted(effects, step)
        hits += abs(mean - step @ slopes) <= half
    assert 0.93 < hits / 1000 < 0.97


def test_moves_that_were_not_tried_say_nothing_of_evenness():
    """Where two of three sites change together, as where the two are one."""
    rng = np.random.default_rng(0)
    one, other = rng.choice((-0.2, 0.2), (2, 40))
    values = one + other + rng.normal(0, 0.3, 40)
    three = screening.fit(np.stack([one, other, other], axis=1), values, np.zeros(40))
    two = screening.fit(np.stack([one, other], axis=1), values, np.zeros(40))
    chances = [
        screening.chance_of_even(three, np.array([2.0, 1.0, 1.0])),
        screening.chance_of_even(two, np.array([1.0, 1.0])),
    ]
    assert chances[0] == pytest.approx(chances[1])
    assert 0.01 < chances[0] < 0.99
