"""Warm start: nothing changed, grown, shrunk."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.gates import fit_width, gate
from furs_jax.networks import get_network
from furs_jax.networks.network import Network
from furs_jax.training.step import shard
from furs_jax.training.trainer import make_trainer
from furs_jax.widths.inherit import free_axes, inherit, least_important_first, permute
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv, tiny_network
from tests.own_network import Fork
from tests.training.test_step import RECIPE, random_split, random_task


def _trained(net, channels, steps=3):
    """A trainer and a state in which momentum and statistics have moved."""
    trainer = make_trainer(random_task(net, 1), channels, RECIPE, random_split(48))
    state = trainer.start(0)
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
    warm = inherit(state, trainer.start(1), _identity(tiny.channels), free_axes(tiny))
    names = ("stage1_block1_conv1", "stage1_block1_conv2")
    before = [np.array(warm.params[name]["bn"]["scale"]) for name in names]
    split = random_split(16)
    for _ in range(3):
        warm, _ = trainer.step(warm, shard({"image": split.images, "label": split.labels}, 1))
    for name, first in zip(names, before, strict=True):
        assert abs(warm.params[name]["bn"]["scale"][0] - first[0]) > 1e-4


def _wide_and_narrow(net, leaf):
    """States of the network and of a wider one, of random arrays made by `leaf`."""
    rng = np.random.default_rng(0)

    def state(channels):
        trainer = make_trainer(random_task(net, 1), channels, RECIPE, random_split(48))
        return jax.tree.map(
            lambda x: leaf(rng.normal(size=x.shape).astype(x.dtype)), trainer.abstract()
        )

    return state(net.channels), state([c + 1 + site % 2 for site, c in enumerate(net.channels)])


def test_what_is_inherited_is_to_the_last_bit_what_jax_computes(tiny):
    old, fresh = _wide_and_narrow(tiny, jnp.asarray)
    found = inherit(old, fresh, [np.arange(c)[::-1] for c in tiny.channels], free_axes(tiny))
    first, second = "stage1_block1_conv1", "stage1_block1_conv2"
    scales = [state.params[first]["bn"]["scale"] for state in (old, fresh, found)]
    expected = (scales[1] * 0.01).at[-4:].set(scales[0][::-1])
    np.testing.assert_array_equal(scales[2], expected)
    # The layer behind reads the channels in their new order; momentum goes with its weights.
    momenta = [
        state.opt_state[1][0].trace[second]["conv"]["kernel"] for state in (old, fresh, found)
    ]
    expected = momenta[1].at[:, :, -4:, -5:].set(momenta[0][:, :, ::-1])
    np.testing.assert_array_equal(momenta[2], expected)
    assert jax.tree.structure(found) == jax.tree.structure(fresh)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(fresh), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)


def test_nothing_is_compiled_or_computed(monkeypatch):
    net = tiny_network()
    old, fresh = _wide_and_narrow(net, jax.device_put)
    compiled = []

    def listen(event, *_, **__):
        compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        free_axes.cache_clear()
        axes = free_axes(net)
        widths = [c - 1 for c in net.channels]
        order = least_important_first(
            [np.ones(c) for c in net.channels], axes, net.channels, widths
        )
        inherit(old, fresh, order, axes)
        assert not [event for event in compiled if "compile" in event and "jaxpr" not in event]
        jax.jit(lambda x: x + len(compiled))(1.0)  # which the listener would have heard
        assert [event for event in compiled if "backend_compile" in event]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


class Odd(nn.Module):
    """Three layers of one's own; `way` says what is odd about the second."""

    channels: tuple[int, ...] = (6, 8, 4)
    num_classes: int = 3
    axis_name: str | None = None
    way: str = ""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        way, width = self.way, self.channels[1]

        def layer(x, site, **options):
            x = nn.Conv(self.channels[site], (3, 3), use_bias=False, **options)(x)
            if way != "no normalisation":
                x = nn.BatchNorm(not train, axis_name=self.axis_name)(x)
            x = nn.sigmoid(x) if way == "never zero" else nn.leaky_relu(x)
            return gate(x, gates, site)

        y = layer(layer(images, 0), 1)
        if way == "behind the image":
            y = jnp.concatenate([images, y], axis=-1)
        if way == "before the image":
            y = jnp.concatenate([y, images], axis=-1)
        if way == "and the image":
            y = y + fit_width(images, width)
        if way == "depthwise":
            y = nn.Conv(width, (3, 3), feature_group_count=width, use_bias=False)(y)
        if way == "turned":
            y = y[..., ::-1]
        if way == "times a number":  # which has no axis to be known by
            y = y * self.param("factor", nn.initializers.ones, ())
        if way == "halves":
            y = nn.Conv(4, (1, 1))(y[..., :2]) + nn.Conv(4, (1, 1))(y[..., 2:])
        if way == "squeezed":
            weights = nn.Dense(width)(nn.relu(nn.Dense(2)(y.mean((1, 2)))))
            y = y * nn.sigmoid(weights)[:, None, None]
        if way == "in groups":
            y = layer(nn.Conv(4, (1, 1))(y), 2, feature_group_count=2)
        else:
            y = layer(y, 2)
        y = y.reshape(len(y), -1) if way == "flattened" else y.mean((1, 2))
        return nn.Dense(self.num_classes)(y)


WAYS = {
    "": True,
    "behind the image": False,
    "before the image": True,
    "and the image": True,
    "depthwise": True,
    "turned": False,
    "halves": False,
    "times a number": False,
    "squeezed": True,
    "flattened": False,
    "never zero": False,
    "no normalisation": False,
}


@pytest.mark.parametrize(
    ("net", "inherits"),
    [
        *((tiny_network(*given), True) for given in (("max",), ("local",), ("max", True))),
        (tiny_mbconv("max"), True),
        (tiny_mbconv("local"), False),  # a wider block than the next
        (tiny_densenet(), False),
        (Network.from_module(Odd(way="in groups"), (8, 8, 1)), False),
        *((Network(way, Odd(way=way), (8, 8, 1)), inherits) for way, inherits in WAYS.items()),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_the_map_says_what_forward_passes_show(net, inherits):
    """Found slowly: the axes that grow with a site, turned round; silent channels in front."""
    variables, step = random_variables(net, net.channels), net.multiple
    images = np.random.default_rng(1).normal(size=(2, *net.image_shape)).astype(np.float32)
    logits = net.module(net.channels).apply(variables, images)

    def same(channels, changed):
        found = net.module(channels).apply(changed, images)
        return np.allclose(found, logits, rtol=1e-3, atol=1e-4)

    free, order = {}, [np.arange(c)[::-1] for c in net.channels]
    for site, width in enumerate(net.channels):
        wider = random_variables(net, [c + step * (i == site) for i, c in enumerate(net.channels)])
        pairs = zip(
            jax.tree_util.tree_leaves_with_path(variables), jax.tree.leaves(wider), strict=True
        )
        axes = {
            (jax.tree_util.keystr(path[1:]), axis)
            for (path, x), y in pairs
            for axis in range(x.ndim)
            if y.shape[axis] == x.shape[axis] + step == width + step
        }
        turned = {name: permute(tree, order, {site: axes}) for name, tree in variables.items()}
        if same(net.channels, turned):
            free[site] = axes

    def silent_in_front(path, old, new):
        new = np.zeros_like(new) if path[-1].key in ("scale", "bias") else np.array(new)
        if new.ndim:
            new[tuple(slice(-size, None) for size in old.shape)] = old
        return new

    wider = [c + step for c in net.channels]
    grown = random_variables(net, wider, seed=1)
    grown = jax.tree_util.tree_map_with_path(silent_in_front, variables, grown)
    assert same(wider, grown) == inherits
    if inherits:
        assert {site: set(axes) for site, axes in free_axes(net).items()} == free
    else:
        with pytest.raises(ConfigError, match="warm_start can't be used with .* give search.warm"):
            free_axes(net)


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
