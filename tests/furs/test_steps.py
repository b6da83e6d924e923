"""What FURs are drawn from, and the second order in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.furs.estimate import Estimator
from furs_jax.furs.steps import draw_noise, make_dropout_step, make_fisher_step
from furs_jax.gates import gate
from furs_jax.training.step import data_parallel


def test_stratified_draws_are_uniform_and_drop_each_channel_in_turn():
    draws, index = 5, jnp.arange(4000)
    samples = np.stack(
        [draw_noise(jax.random.key(0), index, jnp.int32(r), (3,), draws) for r in range(draws)]
    )
    for r in range(draws):  # each draw alone: uniform, channels independent
        histogram = np.histogram(samples[r], bins=10, range=(0, 1))[0] / samples[r].size
        np.testing.assert_allclose(histogram, 0.1, atol=0.015)
        assert abs(np.corrcoef(samples[r].T)[0, 1]) < 0.05
    assert np.all((samples < 0.2).sum(axis=0) == 1)  # at a rate of 1 / draws: exactly once


@pytest.mark.parametrize("draws", range(1, 52))
def test_passes_make_every_draw_once_and_few_at_a_time(draws):
    for options in ({"draws": draws}, {"draws": "auto", "max_draws": draws}):
        once, passes = Estimator(**options).passes
        assert 1 <= once <= 5
        made = [range(number, draws, passes) for number in range(passes)]
        assert sorted(number for part in made for number in part) == list(range(draws))
        assert {len(part) for part in made} <= {once, once - 1}
        assert passes == -(-draws // 5)  # no slower than need be


@functools.cache
def _samples(draws, passes):
    """Of all draws, 3,000 images and 12 channels, shape (draws, 3000, 12)."""
    key, index = jax.random.key(0), jnp.arange(3000)
    draw = jax.jit(jax.vmap(lambda number: draw_noise(key, index, number, (12,), draws, passes)))
    return np.asarray(draw(jnp.arange(draws)))


@pytest.mark.parametrize(("draws", "passes"), [(7, 2), (10, 2), (13, 3)])
def test_strata_hold_across_passes(draws, passes):
    samples = _samples(draws, passes)[..., :2]
    for sample in samples:  # each draw alone: uniform, channels independent
        histogram = np.histogram(sample, bins=10, range=(0, 1))[0] / sample.size
        np.testing.assert_allclose(histogram, 0.1, atol=0.03)
        assert abs(np.corrcoef(sample.T)[0, 1]) < 0.1
    gaps = np.diff(np.sort(samples, axis=0), axis=0)
    np.testing.assert_allclose(gaps, 1 / draws, atol=1e-5)  # evenly spaced between them
    for number in range(passes):  # and nearly so in each pass: one of each row of strata
        apart = np.diff(np.sort(samples[number::passes], axis=0), axis=0)
        assert np.min(apart) > 1 / draws - 1e-5
        assert np.max(apart) < 2 * passes / draws + 1e-5
        assert np.mean(apart) == pytest.approx(passes / draws, rel=0.2)
    # What two channels do together is told about as well as by independent draws: in one order of
    # strata for all channels its variance is 1.8 to 3 times as large.
    both = np.prod((samples < 0.3) - 0.3, axis=-1).mean(axis=0)
    assert np.var(both) < 1.35 * (0.3 * 0.7) ** 2 / draws


@pytest.mark.parametrize(("rate", "least"), [(0.1, 0.55), (0.3, 0.8)])
def test_seven_draws_are_no_noisier_than_five_and_ten_are_quieter(rate, least):
    weights = np.random.default_rng(0).normal(size=(12, 4))

    def noise(draws):
        """Variance and mean of what dropping twelve channels does to a squared error."""
        samples = _samples(draws, Estimator(draws=draws).passes[1])
        change = (samples >= rate) / (1 - rate) - 1
        rises = np.sum((change @ weights) ** 2, axis=-1).mean(axis=0)
        return rises.var(), rises.mean()

    five, seven, ten = map(noise, (5, 7, 10))
    assert ten[0] < 0.92 * seven[0] < 0.92 * 0.92 * five[0]
    assert ten[0] < least * five[0]
    exact = rate / (1 - rate) * np.sum(weights**2)
    for _, mean in (five, seven, ten):
        assert mean == pytest.approx(exact, rel=0.03)


def test_sampled_fisher_is_the_gauss_newton_second_order_of_a_linear_network():
    """Where logits are linear in the gates, the rise under small noise is exactly that."""
    rng = np.random.default_rng(0)
    weights, rate = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), 0.02
    features = jnp.asarray(rng.normal(size=(500, 1, 1, 6)), jnp.float32)

    def apply(_, images, gates):
        return jnp.mean(gate(images, gates, 0), axis=(1, 2)) @ weights

    def rise(step):
        batch = {
            "image": features[None],
            # From the network's own prediction, so that the expected Hessian is Gauss-Newton's.
            "label": jax.random.categorical(jax.random.key(1), apply(None, features, None))[None],
            "index": jnp.arange(500)[None],
        }
        inputs = (None, jnp.array([rate]), jax.random.key(0), jnp.int32(0))
        return float(data_parallel(step, jax.devices()[:1])(inputs, batch).rise[0, 0].mean())

    dropout = rise(make_dropout_step(apply, (6,), 1000, "gaussian"))
    assert rise(make_fisher_step(apply, (6,), "sampled")) == pytest.approx(dropout, rel=0.1)
