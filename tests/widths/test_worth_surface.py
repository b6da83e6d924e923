"""The surface of what widths are worth, against plain linear algebra and simulated truths."""

import numpy as np
import pytest

from furs_jax.widths.worth import surface
from furs_jax.widths.worth.surface import Noise, features, fit

ELASTICITIES = np.array([0.5, 0.2, 0.2, 0.15, 0.4, 0.2])
SITES = len(ELASTICITIES)
NOISE = Noise(0.2)


def _task(seed, count, spread=0.15, direction=None, share=0.0):
    """Log widths, scores, and the slopes and curvatures that made them."""
    rng = np.random.default_rng(seed)
    deviations = spread * rng.normal(size=SITES) * np.sqrt(1 - share)
    if direction is not None:
        deviations = deviations + spread * np.sqrt(share) * direction
    worth = np.concatenate(
        [ELASTICITIES + deviations, 0.2 * ELASTICITIES * rng.exponential(size=SITES)]
    )
    offsets = rng.choice((-0.6, 0.6), (count, SITES)) + rng.normal(size=(count, SITES)) * 0.1
    scores = 90 + features(offsets) @ worth + 0.2 * rng.normal(size=count)
    return offsets, scores, worth


def test_many_trainings_find_the_truth():
    offsets, scores, worth = _task(0, 400)
    found = fit(offsets, scores, ELASTICITIES, NOISE, np.random.default_rng(0))
    slopes = found.worth[:, :SITES]
    np.testing.assert_allclose(np.mean(slopes, axis=0), worth[:SITES], atol=0.05)
    assert np.mean(found.level) == pytest.approx(90, abs=0.2)
    assert np.all(found.worth[:, SITES:] >= 0)


@pytest.mark.parametrize("true", [0.1, 0.3])
def test_noise_is_learned(true):
    offsets, scores, worth = _task(1, 60)
    quiet = 90 + features(offsets) @ worth
    scores = quiet + (scores - quiet) * true / 0.2
    found = fit(offsets, scores, ELASTICITIES, NOISE, np.random.default_rng(0))
    assert np.mean(found.noise) == pytest.approx(true, rel=0.25)


def test_one_belief_gives_the_posterior_of_linear_algebra(monkeypatch):
    """With a grid of one point and curvatures far above zero, by the textbook's formula."""
    monkeypatch.setattr(surface, "_SPREADS", (0.7,))
    monkeypatch.setattr(surface, "_CURVATURES", (1.0,))
    monkeypatch.setattr(surface, "_EQUAL", {0.5: 1.0})
    monkeypatch.setattr(surface, "_NOISES", np.ones(1))
    monkeypatch.setattr(surface, "_above_zero", _anywhere)
    offsets, scores, _ = _task(2, 9)
    found = fit(offsets, scores, ELASTICITIES, NOISE, np.random.default_rng(0), draws=40_000)

    common = ELASTICITIES / np.sqrt(np.mean(ELASTICITIES**2))
    along = common * np.mean(common)
    beside = (1 - along) / np.sqrt(np.mean((1 - along) ** 2))
    curved = ELASTICITIES / np.mean(ELASTICITIES)
    mean = np.concatenate([[0], 0.7 * np.sqrt(0.5) * beside, curved]) * 0.2
    precision = np.zeros((13, 13))
    precision[0, 0] = 30.0**-2
    precision[1:7, 1:7] = np.linalg.inv(100 * np.outer(common, common) + 0.245 * np.eye(6))
    precision[7:, 7:] = np.diag(curved**-2)
    precision /= 0.2**2
    design = np.column_stack([np.ones(9), features(offsets)])
    covariance = np.linalg.inv(precision + design.T @ design / 0.2**2)
    centre = np.mean(scores)
    expected = covariance @ (precision @ mean + design.T @ (scores - centre) / 0.2**2)

    drawn = np.column_stack([found.level - centre, found.worth])
    error = np.sqrt(np.diag(covariance) / len(drawn))
    assert np.all(np.abs(np.mean(drawn, axis=0) - expected) < 5 * error + 0.01 * error * 40)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05 * np.max(covariance))


def _anywhere(mean, deviation, rng):
    return mean + deviation * rng.standard_normal(mean.shape)


def test_evidence_is_the_density_of_scores():
    """Against scipy's, for each belief and noise."""
    from scipy.stats import multivariate_normal

    offsets, scores, _ = _task(3, 7)
    design = np.column_stack([np.ones(7), features(offsets)])
    beliefs = surface._beliefs(ELASTICITIES, None)
    evidence, noises, _ = surface._explained(beliefs, design, scores - 90, NOISE)
    for belief, size in [(0, 3), (20, 8), (len(beliefs.means) - 1, 12)]:
        covariance = design @ beliefs.covariances[belief] @ design.T + np.eye(7)
        density = multivariate_normal(
            noises[size] * design @ beliefs.means[belief], noises[size] ** 2 * covariance
        ).logpdf(scores - 90)
        prior = -((np.log(noises[size] / 0.2) / 0.3) ** 2) / 2 + beliefs.log_weights[belief]
        constant = 7 / 2 * np.log(2 * np.pi)
        assert evidence[belief, size] == pytest.approx(density + prior + constant, rel=1e-6)


def test_curvatures_are_drawn_from_the_cut_off_distribution():
    rng = np.random.default_rng(0)
    mean = np.full(200_000, -2.0)
    found = surface._above_zero(mean, np.ones(200_000), rng)
    assert np.mean(found) == pytest.approx(0.3732, abs=0.003)  # of N(-2, 1) above 0
    assert np.min(found) >= 0
    assert np.all(np.isfinite(surface._above_zero(np.full(99, -60.0), np.ones(99), rng)))


def test_a_direction_is_trusted_as_far_as_it_proves_right():
    rng = np.random.default_rng(4)
    direction = rng.normal(size=SITES)
    direction = surface._beside(surface._unit(ELASTICITIES), direction)

    def share(given, seed):
        offsets, scores, _ = _task(seed, 48, 0.3, direction, 0.9)
        found = fit(offsets, scores, ELASTICITIES, NOISE, np.random.default_rng(0), given)
        return np.mean(found.share)

    right = np.mean([share(direction, seed) for seed in range(12)])
    wrong = np.mean([share(-direction, seed) for seed in range(12)])
    assert right > 0.55
    assert wrong < 0.2
    # Neither its length nor what is along the cost's elasticities means anything.
    assert share(1e-7 * (direction + 3 * ELASTICITIES), 0) == share(direction, 0)


def test_gains_are_covered():
    """95 % intervals of one vector's gain, when tasks are as believed."""
    offset = np.array([[-0.5, 0.5, 0.5, 0.5, -0.5, 0.3]])
    held = []
    for seed in range(200):
        offsets, scores, worth = _task(seed, 12)
        found = fit(offsets, scores, ELASTICITIES, NOISE, np.random.default_rng(seed))
        low, high = np.quantile(found.gains(offset), (0.025, 0.975))
        held.append(low <= features(offset)[0] @ worth <= high)
    assert 0.9 <= np.mean(held) <= 1.0


def test_the_same_draws_again_and_none_needed_trainings():
    offsets, scores, _ = _task(5, 6)
    one, two = (
        fit(offsets, scores, ELASTICITIES, NOISE, np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(one.worth, two.worth)
    before = fit([], [], ELASTICITIES, NOISE, np.random.default_rng(7))
    assert before.worth.shape == (500, 12)
    assert np.all(np.isfinite(before.worth))


def test_curvatures_take_away():
    np.testing.assert_array_equal(features(np.array([[2.0, -3.0]])), [[2, -3, -4, -9]])
