"""Filters at any place, zeroed or taken out: the small network is what the masked one is."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.gates import fit_places, fit_width, gate, joined_places, match_streams, site_places
from furs_jax.networks import NETWORKS, get_network
from furs_jax.networks.filters import (
    alive,
    filter_weights,
    pruned_network,
    pruned_variables,
    site_filters,
    with_zeroed,
)
from furs_jax.networks.network import Network
from furs_jax.networks.trace import trace_module
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv, tiny_network

SHIPPED = {  # of every family, small
    "resnet8_cifar": (0.25, (8, 8, 1)),
    "resnet18": (0.07, (32, 32, 1)),
    "pyramidnet14_cifar": (0.25, (8, 8, 1)),
    "mnasnet_cifar": (0.25, (8, 8, 1)),
    "plain14_cifar": (0.25, (8, 8, 1)),
}
TINY = {"tiny_mbconv": tiny_mbconv, "tiny_densenet": tiny_densenet}


class Own(nn.Module):
    """A residual sum of one's own, whose shortcut is the first layer."""

    channels: tuple[int, ...] = (6, 7, 4)
    num_classes: int = 10
    places: tuple[tuple[int, ...], ...] | None = None
    heeded: bool = True  # whether the places are

    @nn.compact
    def __call__(self, x: jax.Array, gates: Any = None, train: bool = False) -> jax.Array:
        def layer(x, site):
            x = nn.Conv(self.channels[site], (3, 3), name=f"conv{site}")(x)
            return gate(nn.relu(x), gates, site)

        x = layer(x, 0)
        y = layer(x, 1)
        own = site_places(self.channels, self.places if self.heeded else None)
        trunk = joined_places(*own[:2])
        x, y = match_streams(gates, fit_places(x, own[0], trunk), fit_places(y, own[1], trunk))
        x = layer(x + y, 2)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


class Placeless(nn.Module):
    """Of the same sum, which aligns the last channels and nothing else."""

    channels: tuple[int, ...] = (6, 7)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, gates: Any = None, train: bool = False) -> jax.Array:
        x = gate(nn.relu(nn.Conv(self.channels[0], (3, 3))(x)), gates, 0)
        y = gate(nn.relu(nn.Conv(self.channels[1], (3, 3))(x)), gates, 1)
        width = max(self.channels)
        x, y = match_streams(gates, fit_width(x, width), fit_width(y, width))
        return nn.Dense(self.num_classes)((x + y).mean(axis=(1, 2)))


def network(name: str) -> Network:
    if name in TINY:
        return TINY[name]()
    if name in SHIPPED:
        width, shape = SHIPPED[name]
        return get_network(name, width, 10, image_shape=shape)
    return Network.from_module(Own(), (8, 8, 1))


def removal(net: Network, seed: int = 0) -> list[np.ndarray]:
    """Random channels of every site, at least one and never all."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(c)[: rng.integers(1, c)]) for c in net.channels]


def logits(net: Network, variables: Any, images: np.ndarray, gates: Any = None) -> np.ndarray:
    if gates is None:
        gates = [np.ones((1, 1, 1, c), np.float32) for c in net.channels]
    return np.asarray(_apply(net)(variables, images, gates))


@functools.lru_cache(maxsize=2)
def _apply(net: Network) -> Callable:
    # Run a few times, so compiled quickly.
    return jax.jit(
        net.module(net.channels).apply, compiler_options={"xla_backend_optimization_level": 0}
    )


def test_every_family_is_looked_at():
    kinds = {type(get_network(name, num_classes=10).template) for name in NETWORKS}
    assert kinds == {type(network(name).template) for name in (*SHIPPED, "tiny_densenet")}


@pytest.mark.parametrize("name", [*SHIPPED, *TINY, "own"])
def test_the_small_network_computes_what_the_masked_one_does(name):
    net = network(name)
    filters, removed = site_filters(net), removal(net)
    variables = random_variables(net, net.channels)
    params = with_zeroed(variables["params"], filters, removed)
    masked = {**variables, "params": params}
    small, cut = pruned_network(net, removed), pruned_variables(net, removed, masked)
    images = np.random.default_rng(1).normal(size=(3, *net.image_shape)).astype(np.float32)
    expected = logits(net, masked, images)
    scale = np.std(expected)
    np.testing.assert_allclose(logits(small, cut, images), expected, atol=1e-5 * scale)
    # Both are the network with gates of zero.
    gates = [np.ones((1, 1, 1, c), np.float32) for c in net.channels]
    for value, channels in zip(gates, removed, strict=True):
        value[..., channels] = 0
    np.testing.assert_allclose(logits(net, variables, images, gates), expected, atol=1e-5 * scale)
    assert np.max(np.abs(logits(net, variables, images) - expected)) > 0.01 * scale
    # Counted where it is smaller, by the table as by the trace.
    traced = trace_module(small.module(small.channels), net.image_shape)
    assert small.macs(small.channels) == sum(p.macs for p in traced.products)
    assert small.macs(small.channels) < net.macs(net.channels)
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(traced.variables["params"])]
    assert small.params(small.channels) == sum(sizes)
    assert jax.tree.map(np.shape, cut) == jax.tree.map(lambda x: x.shape, dict(traced.variables))
    found = [np.flatnonzero(~np.asarray(alive(params, own))) for own in filters]
    assert [list(x) for x in found] == [list(x) for x in removed]


def test_channels_return_to_their_places_in_the_trunk():
    net = network("resnet8_cifar")  # (4, 4, 8, 8, 16, 16), stem 4
    removed = [[], [0, 3], [], [0, 5, 6], [], [2]]
    small = pruned_network(net, removed)
    assert small.channels == (4, 2, 8, 5, 16, 15)
    assert small.template.places[1] == (2, 1)
    assert small.template.places[3] == (6, 5, 4, 3, 0)
    trunks = [set(block.join.trunk) for block in small.template.blocks()]
    # The stem has 0 to 3; of the second stage 7 is in nothing that is summed.
    assert trunks == [{0, 1, 2, 3}, {0, 1, 2, 3, 4, 5, 6}, set(range(16)) - {13}]
    again = pruned_network(small, [[0], [1], [], [0], [], []])
    assert again.template.places[1] == (2,)
    assert again.template.places[3] == (5, 4, 3, 0)


def test_without_places_a_network_is_what_it_was():
    net = network("resnet8_cifar")
    last = tuple(tuple(range(c - 1, -1, -1)) for c in net.channels)
    images = np.zeros((2, *net.image_shape), np.float32)

    def traced(net):
        variables = random_variables(net, net.channels)
        return str(jax.make_jaxpr(net.module(net.channels).apply)(variables, images))

    wider = net.of([c + site % 3 for site, c in enumerate(net.channels)])
    assert wider.template.places is None
    assert traced(pruned_network(net, [[]] * 6)) == traced(net)
    assert pruned_network(net, [[]] * 6) is net
    # Of the last channels the same is computed, by other operations.
    variables = random_variables(net, net.channels)
    found = [logits(n, variables, images + 1) for n in (net, net.of(net.channels, places=last))]
    np.testing.assert_array_equal(*found)
    with pytest.raises(ValueError, match="places of"):
        net.of(wider.channels, places=last).macs(wider.channels)


def test_filters_are_all_the_weights_that_make_a_channel():
    net = tiny_network(imagenet=True)
    params = random_variables(net, net.channels)["params"]
    filters = site_filters(net)
    (first, *_, last) = (filter_weights(params, own) for own in filters)
    kernel = params["stage1_block1_conv1"]["conv"]["kernel"]
    np.testing.assert_array_equal(first, [kernel[..., c].ravel() for c in range(4)])
    parts = [params[f"stage2_block1_{name}"]["conv"]["kernel"] for name in ("conv2", "shortcut")]
    expected = [np.concatenate([part[..., c].ravel() for part in parts]) for c in range(8)]
    np.testing.assert_array_equal(np.sort(last), np.sort(expected))
    # In an MBConv block the 1x1 convolution makes them, not the depthwise one behind it.
    kernels = site_filters(tiny_mbconv())[1].kernels
    assert [place.path for place in kernels] == ["['stage2_block1_expand']['conv']['kernel']"]


@pytest.mark.parametrize("name", ["resnet8_cifar", "resnet18", "mnasnet_cifar"])
def test_where_a_gate_covers_a_shortcut_nothing_is_pruned(name):
    with pytest.raises(ConfigError, match="can't be pruned: .*; give padding=max"):
        site_filters(get_network(name, 0.25, 10, padding="local"))


def test_a_module_of_ones_own_needs_places_for_its_sums():
    with pytest.raises(ConfigError, match="sum joins site 0, so its module needs .*`places`"):
        site_filters(Network.from_module(Placeless(), (8, 8, 1)))
    with pytest.raises(ConfigError, match="at any place Own is not the network with them at zero"):
        site_filters(Network.from_module(Own(heeded=False), (8, 8, 1)))


def test_the_formula_of_macs_knows_places():
    """As tracing each network does, which takes longer."""
    net = network("own")
    assert net.model is not None
    for seed in range(5):
        small = pruned_network(net, removal(net, seed))
        assert dataclasses.replace(small, model=None).macs(small.channels) == small.macs(
            small.channels
        )


def test_channels_are_fitted_by_their_places():
    x = jnp.arange(1.0, 4.0)[None, None, None]
    found = fit_places(x, (5, 2, 0), (6, 5, 3, 2, 1, 0))
    assert found.ravel().tolist() == [0, 1, 0, 2, 0, 3]
    assert fit_places(x, (5, 2, 0), (2, 0)).ravel().tolist() == [2, 3]
    assert fit_places(x, range(2, -1, -1), (4, 3, 1)).ravel().tolist() == [0, 0, 2]
    assert joined_places((5, 2, 0), range(1, -1, -1)) == (5, 2, 1, 0)
    assert joined_places(range(3, -1, -1), range(1, -1, -1)) == range(3, -1, -1)
