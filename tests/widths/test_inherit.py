"""Warm start: nothing changed, grown, shrunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.networks import Network, get_network
from furs_jax.training.step import shard
from furs_jax.training.train import make_trainer
from furs_jax.widths.inherit import channel_importance, free_axes, inherit, least_important_first
from tests.conftest import tiny_network
from tests.own_network import Fork
from tests.training.test_step import RECIPE, random_split, random_task


def _trained(net, channels, steps=3):
    """A trainer and a state in which momentum and statistics have moved."""
    trainer = make_trainer(random_task(net, 1), channels, RECIPE, random_split(48))
    state = trainer.init(0)
    for step in range(steps):
        split = random_split(16, step)
        state, _ = trainer.step(state, shard({"image": split.images, "label": split.labels}, 1))
    return trainer, state


def _logits(net, channels, variables, gates=None):
    images = np.random.default_rng(9).normal(size=(4, *net.image_shape)).astype(np.float32)
    return np.asarray(net.module(channels).apply(variables, images, gates))


@pytest.fixture(params=[("max", False), ("local", False), ("max", True)], ids=str)
def net(request):
    padding, imagenet = request.param
    return tiny_network(padding, imagenet)


def _identity(channels):
    return [np.arange(c) for c in channels]


def test_inherited_unchanged_grown_and_shrunk(net):
    channels = net.channels
    _, state = _trained(net, channels)
    axes = free_axes(net)
    # The first convolution of every block is read by the second alone, and the sum after a
    # projection in the last block by the head alone.
    assert set(axes) == {0, 2} | ({3} if net.template.imagenet else set())
    before = _logits(net, channels, state.variables)
    scale = np.std(before)

    def fresh(widths):
        return make_trainer(random_task(net, 1), widths, RECIPE, random_split(48)).init(1)

    same = inherit(state, fresh(channels), _identity(channels), axes)
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(same, name), getattr(state, name))
    # The momentum is carried over; the schedule starts anew.
    momentum = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    kept = [x for x in jax.tree.leaves(same.opt_state) if x.ndim]
    assert momentum
    jax.tree.map(np.testing.assert_array_equal, kept, momentum)
    assert int(same.step) == 0
    assert all(int(x) == 0 for x in jax.tree.leaves(same.opt_state) if not x.ndim)

    wider = [c + 1 + site % 3 for site, c in enumerate(channels)]
    grown = inherit(state, fresh(wider), _identity(channels), axes, new_scale=0.0)
    np.testing.assert_allclose(_logits(net, wider, grown.variables), before, atol=1e-4 * scale)
    hardly = _logits(net, wider, inherit(state, fresh(wider), _identity(channels), axes).variables)
    assert 1e-6 * scale < np.max(np.abs(hardly - before)) < 0.2 * scale

    narrower = [c - 1 - site % 2 for site, c in enumerate(channels)]
    rng = np.random.default_rng(0)
    importance = [rng.random(c) for c in channels]
    order = least_important_first(importance, axes, channels, narrower)
    shrunk = inherit(state, fresh(narrower), order, axes)
    gates = []
    for site, (old, new) in enumerate(zip(channels, narrower, strict=True)):
        value = np.ones(old, np.float32)
        value[order[site][: old - new]] = 0
        if site in axes:
            assert np.all(importance[site][value == 0] <= importance[site][value == 1].min())
        gates.append(jnp.asarray(value).reshape(1, 1, 1, old))
    masked = _logits(net, channels, state.variables, gates)
    np.testing.assert_allclose(_logits(net, narrower, shrunk.variables), masked, atol=1e-4 * scale)
    assert np.max(np.abs(masked - before)) > 1e-3 * scale


def test_a_new_channel_learns(tiny):
    _, state = _trained(tiny, tiny.channels)
    wider = [c + 1 for c in tiny.channels]
    trainer = make_trainer(random_task(tiny, 1), wider, RECIPE, random_split(48))
    warm = inherit(state, trainer.init(1), _identity(tiny.channels), free_axes(tiny))
    names = ("stage1_block1_conv1", "stage1_block1_conv2")
    before = [np.array(warm.params[name]["bn"]["scale"]) for name in names]
    split = random_split(16)
    for _ in range(3):
        warm, _ = trainer.step(warm, shard({"image": split.images, "label": split.labels}, 1))
    for name, first in zip(names, before, strict=True):
        assert abs(warm.params[name]["bn"]["scale"][0] - first[0]) > 1e-4


def test_importance_is_the_summed_squared_gradient_on_any_number_of_devices(tiny):
    _, state = _trained(tiny, tiny.channels)
    module, split = tiny.module(tiny.channels), random_split(16)

    def apply(variables, images, gates):
        return module.apply(variables, images.astype(jnp.float32), gates)

    batch = {
        "image": split.images,
        "label": split.labels,
        "weight": np.array([1.0] * 15 + [0.0], np.float32),
    }
    found = [
        channel_importance(apply, tiny.channels, state.variables, [batch], jax.devices()[:devices])
        for devices in (1, 8)
    ]
    expected = [np.zeros(c) for c in tiny.channels]
    for n in range(15):

        def loss(gates, n=n):
            logits = apply(state.variables, jnp.asarray(split.images[n : n + 1]), gates)
            return -jax.nn.log_softmax(logits)[0, split.labels[n]]

        gradients = jax.grad(loss)([jnp.ones((1, 1, 1, c)) for c in tiny.channels])
        expected = [e + np.square(g).reshape(-1) for e, g in zip(expected, gradients, strict=True)]
    for sites in zip(*found, expected, strict=True):
        for site in sites[:2]:
            np.testing.assert_allclose(site, sites[2], rtol=2e-3, atol=1e-6 * np.max(sites[2]))


@pytest.mark.parametrize(
    "net",
    [
        get_network("densenet16_cifar", 0.45, 10, image_shape=(8, 8, 1)),
        Network.from_module(Fork(), (8, 8, 1)),  # a concatenation, and groups of two
    ],
    ids=lambda net: net.name,
)
def test_networks_that_concatenate_are_refused(net):
    with pytest.raises(ConfigError, match="warm_start can't be used with"):
        free_axes(net)
