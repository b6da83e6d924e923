"""Weights and logits of a supernet: whose images train what, the penalty, resuming, devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from furs_jax.data.halves import halves
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.networks.supernet import candidate_widths, draw_two, supernet
from furs_jax.objectives import Forward, Objective, Outcome
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.training.recipe import make_optimizer, make_schedule
from furs_jax.training.step import replicated, shard
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer
from furs_jax.training.width_search import (
    Penalty,
    WidthSearch,
    adam,
    cosine_temperature,
    width_optimizer,
)
from tests.training.test_step import RECIPE, random_split, random_task

NET = Network("plain", Plain((10, 7), 4, num_classes=10, stages=1), (8, 8, 1))
WIDTHS, FORMULA = candidate_widths(NET.channels), NET.macs_formula()


def penalty(need):
    return Penalty(FORMULA, WIDTHS, need, 0.05, 2.0)


@functools.cache
def trainer(devices=1):
    task = random_task(supernet(NET), devices)
    split = halves(random_split(97), 0)
    penalised = penalty(NET.macs(NET.channels) / 2)
    objective = WidthSearch(CrossEntropy(0.1), penalised, cosine_temperature(5.0, 0.1, 6))
    optimizer = width_optimizer(RECIPE, adam(1e-2, (0.5, 0.999), 1e-3))
    return make_trainer(task, NET.channels, RECIPE, split, objective, optimizer)


def test_the_temperature_falls_from_first_to_last_by_a_cosine():
    temperature = cosine_temperature(5.0, 0.1, 100)
    found = [float(temperature(jnp.int32(step))) for step in (0, 25, 50, 100)]
    assert found == pytest.approx([5.0, 0.1 + 4.9 * (1 + 0.5**0.5) / 2, 2.55, 0.1], rel=1e-5)


def _probable(index):
    """Logits whose likeliest candidate is the `index`-th of each site, though not by much."""
    logits = np.random.default_rng(0).normal(0, 0.3, WIDTHS.shape)
    logits[:, index] = np.max(logits, axis=1) + 0.1
    return logits


def _slow_penalty(logits, need, most):
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = FORMULA((shares * WIDTHS).sum(axis=1))
    now = NET.macs(WIDTHS[np.arange(len(WIDTHS)), logits.argmax(axis=1)])
    if now > need:
        return 2 * np.log(expected)
    return -2 * np.log(expected) if now < need - 0.05 * most else 0.0


@pytest.mark.parametrize(("place", "sign"), [("above", 1), ("within", 0), ("below", -1)])
def test_the_penalty_steers_the_likeliest_network_to_the_budget(place, sign):
    logits, most = _probable(5), NET.macs(NET.channels)
    now = NET.macs(WIDTHS[:, 5])
    # Within the tolerance, and not so if it were one of the need or of nothing.
    need = {"above": now - 1, "within": now + 0.049 * most, "below": now + 0.051 * most}[place]
    value, gradient = jax.jit(jax.value_and_grad(penalty(need)))(jnp.array(logits, jnp.float32))
    assert float(value) == pytest.approx(_slow_penalty(logits, need, most), rel=1e-5)
    assert np.sign(value) == sign
    step, slow = 1e-2, np.zeros_like(logits)
    for entry in np.ndindex(*logits.shape):
        moved = np.zeros_like(logits)
        moved[entry] = step
        pair = [_log_expected(logits + way * moved) for way in (1, -1)]
        slow[entry] = 2 * sign * (pair[0] - pair[1]) / (2 * step)
    np.testing.assert_allclose(gradient, slow, rtol=2e-2, atol=2e-5)
    assert sign == 0 or np.max(np.abs(gradient)) > 1e-2


def _log_expected(logits):
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    factors = FORMULA.factors((shares * WIDTHS).sum(axis=1))
    return np.log(factors.reshape(-1, 3).prod(axis=1).sum())


def _batch(odd=0, even=0):
    """Images and labels of 16 pairs, of which those of either half may be others."""
    first, second = (random_split(16, seed) for seed in (10 + even, 20 + odd))
    return {
        key: np.stack(pair, axis=1).reshape(32, *pair[0].shape[1:])
        for key, pair in zip(("image", "label"), zip(first, second, strict=True), strict=True)
    }


def test_weights_learn_from_one_half_and_logits_from_the_other():
    made = trainer()

    def begun():
        return replicated(made.start(0), made.task.devices)  # as `train` gives it

    states = {
        name: made.step(begun(), shard(_batch(**other), 1))[0].params
        for name, other in (("as is", {}), ("first", {"even": 1}), ("second", {"odd": 1}))
    }

    def same(other, part):
        pair = [jax.tree.leaves(states[name][part]) for name in ("as is", other)]
        return all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))

    assert [same("second", "net"), same("second", "logits")] == [True, False]
    assert [same("first", "net"), same("first", "logits")] == [False, True]


def test_logits_have_adam_with_l2_and_weights_the_recipe_s_sgd():
    rng = np.random.default_rng(0)
    params = {"net": {"w": rng.normal(size=3)}, "logits": rng.normal(size=(2, 8))}
    params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
    recipe = dataclasses.replace(RECIPE, weight_decay=0.1)
    both = width_optimizer(recipe, adam(1e-2, (0.5, 0.999), 0.3))
    alone, schedule = make_optimizer(recipe), make_schedule(recipe, 3, 1)
    logits, weights = np.array(params["logits"], float), params["net"]
    state, own, first, second = both.init(params), alone.init(weights), 0.0, 0.0
    for step in range(1, 4):
        grads = jax.tree.map(jnp.cos, params)
        updates, state = both.update(grads, state, params, schedule=schedule)
        params = optax.apply_updates(params, updates)
        update, own = alone.update(jax.tree.map(jnp.cos, weights), own, weights, schedule=schedule)
        weights = optax.apply_updates(weights, update)
        gradient = np.cos(logits) + 0.3 * logits
        first = 0.5 * first + 0.5 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        logits = logits - 1e-2 * first / (1 - 0.5**step) / root
    np.testing.assert_allclose(params["logits"], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params["net"]["w"], weights["w"], rtol=1e-6)


def test_a_search_resumes_to_the_bit_and_does_not_depend_on_devices(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(record):
        if record["epoch"] == 1:
            raise StoppedError

    results = []
    for devices, interrupted in ((1, False), (1, True), (2, False)):
        made, folder = trainer(devices), tmp_path / f"{devices}{interrupted}"
        if interrupted:
            with pytest.raises(StoppedError):
                train(made, 0, folder, on_epoch=stop)
        state, record = train(made, 0, folder)
        record.pop("seconds")
        results.append((state.variables, record))
    whole, resumed, on_two = results
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-4), whole, on_two)


class Stub(Objective):
    """Its loss is of the draw and of what it is given, each once."""

    def loss(self, network, extra, batch, key, step):
        share, images = network.module.draw.share, network.images
        loss = jnp.sum(network.params["net"]) * jnp.mean(images) + jnp.sum(share[:, 0])
        return Outcome(loss * jnp.mean(batch["label"]), {}, {})


def test_each_half_has_its_draw_and_the_penalty_is_the_logits():
    objective = WidthSearch(Stub(), penalty(1.0), cosine_temperature(5.0, 0.1, 6))
    extra = {"key": jax.random.key_data(jax.random.key(3)), "inner": None}
    params = {"net": jnp.array([1.0, 2.0]), "logits": jnp.array(_probable(5), jnp.float32)}
    images, labels = jnp.array([1.0, 10.0, 3.0, 30.0]), jnp.array([1.0, 5.0, 1.0, 7.0])
    step = jnp.int32(5)

    @jax.jit
    @jax.value_and_grad
    def found(params, device):
        network = Forward(None, params, {}, images, {})
        key = jax.random.key(device)
        return objective.loss(network, extra, {"label": labels}, key, step).loss

    def draws(logits):
        key = jax.random.fold_in(jax.random.key(3), step)
        keys = [jax.random.fold_in(key, half) for half in range(2)]
        return [draw_two(key, logits, objective.temperature(step)) for key in keys]

    @jax.jit
    @jax.value_and_grad
    def slow(logits):
        """Means of the images are 2 and 20, of the labels 1 and 6; the weights' sum is 3."""
        first, second = (jnp.sum(draw.share[:, 0]) for draw in draws(logits))
        fixed = jax.lax.stop_gradient(first)
        return 3.0 * 2.0 + fixed + (3.0 * 20.0 + second) * 6.0 + penalty(1.0)(logits)

    assert not np.array_equal(*(draw.index for draw in draws(params["logits"])))
    loss, gradient = found(params, 0)
    expected, of_logits = slow(params["logits"])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(found(params, 1)[0]) == float(loss)
    np.testing.assert_allclose(gradient["net"], 2.0)  # of the first half alone
    np.testing.assert_allclose(gradient["logits"], of_logits, rtol=1e-4, atol=1e-6)
