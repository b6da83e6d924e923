"""What vectors cost: each resource against an obvious slow count, and marginals."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.costs import activation_memory, load_cost
from furs_jax.costs.activation_memory import ActivationMemory
from furs_jax.costs.macs import Macs
from furs_jax.costs.params import Params
from furs_jax.furs.ratios import drop_rates
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.lives import lives
from furs_jax.networks.network import Network
from furs_jax.networks.searchable import Searchable
from furs_jax.options.parse import parse
from tests.conftest import tiny_densenet, tiny_mbconv, tiny_network
from tests.own_network import Fork
from tests.small_runs import small_config

NETS = {
    "max": tiny_network(),
    "local": tiny_network("local"),
    "imagenet": tiny_network(imagenet=True),
    "mbconv": tiny_mbconv(),
    "densenet": tiny_densenet(),
    "fork": Network.from_module(Fork(), (8, 8, 1)),
}


def vectors(net, count=4):
    rng = np.random.default_rng(0)
    return (net.multiple * rng.integers(1, 9, (count, len(net.channels)))).tolist()


@pytest.mark.parametrize("name", NETS)
def test_parameters_are_those_that_are_initialised(name):
    net = NETS[name]
    formula = net.params_formula()
    for vector in vectors(net):
        image = jax.ShapeDtypeStruct((1, *net.image_shape), np.float32)
        made = jax.eval_shape(net.module(vector).init, jax.random.key(0), image)["params"]
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(made))
        assert Params(net).of(vector) == count == formula(vector)


def test_activation_memory_by_hand():
    """Three convolutions of 3x3 at 8x8, on one channel; BatchNorm and ReLU are fused into each."""
    net = Network("chain", Plain((6, 10, 3), 5, 10, stages=1), (8, 8, 1))

    def peak(stem, *channels):
        widths = [1, stem, *channels]
        return 4 * 64 * max(a + b for a, b in itertools.pairwise(widths))

    for vector in ((6, 10, 3), (1, 1, 1), (2, 3, 20)):
        assert ActivationMemory(net).of(vector) == peak(5, *vector)
    cost = ActivationMemory(net)
    cost.batch_size = 7
    assert cost.of((6, 10, 3)) == 7 * peak(5, 6, 10, 3)


def test_a_residual_sum_keeps_the_trunk_alive():
    """At the first block's second convolution: the trunk, what it reads, and what it makes."""
    net = tiny_network()
    assert ActivationMemory(net).of((4, 5, 6, 8)) == 4 * 64 * (5 + 4 + 4)
    assert ActivationMemory(net).of((9, 5, 6, 8)) == 4 * 64 * (4 + 9 + 5)


def test_what_is_read_twice_is_made_once():
    def reads(weights, x):
        made = jnp.tanh(x @ weights)
        return made @ weights, made @ weights.T

    weights, x = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((3, 3), (1, 3)))
    found = lives(jax.make_jaxpr(reads)(weights, x).jaxpr)
    assert len(found.arrays) == 5  # the image, three products, and what two of them read
    assert found.alive.tolist()[-1] == [False, False, True, True, True]


class Swapped(nn.Module):
    """Which of two layers is read first depends on their widths."""

    channels: tuple[int, ...] = (4, 6)

    @nn.compact
    def __call__(self, x, gates=None, train=False):
        a, b = (nn.Conv(width, (3, 3), use_bias=False)(x) for width in self.channels)
        a, b = (a, b) if a.shape[-1] < b.shape[-1] else (b, a)
        return a.sum().reshape(1, 1) + b.sum()


def test_there_is_no_formula_where_arrays_live_at_other_times():
    net = Searchable("swapped", Swapped(), (8, 8, 1))
    assert activation_memory._formula(net) is None
    assert ActivationMemory(net).of((9, 6)) == ActivationMemory(net).of((6, 9))


@pytest.mark.parametrize("name", NETS)
def test_the_formula_says_what_each_vector_s_own_trace_says(name):
    net = NETS[name]
    for vector in vectors(net, 2):
        own = ActivationMemory(net.of(vector))
        assert ActivationMemory(net).of(vector) == own.of(vector)


def test_marginals_of_a_peak_are_zero_at_most_sites_and_smoothed_ones_nowhere():
    net = tiny_network()
    cost, vector = ActivationMemory(net), (4, 5, 6, 8)
    steps = np.eye(4, dtype=int)
    slow = [(cost.of(np.add(vector, e)) - cost.of(np.subtract(vector, e))) / 2 for e in steps]
    np.testing.assert_allclose(cost.marginals(vector), slow)
    assert np.count_nonzero(slow) < 4
    smoothed = cost.smoothed(vector)
    assert np.all(smoothed > 0)
    assert np.all(smoothed[np.array(slow) == 0] < max(slow))
    rates = drop_rates(vector, smoothed, 0.05)
    assert np.all((rates > 0) & (rates <= 0.5))
    # The narrowest site has no narrower one.
    assert np.all(np.isfinite(cost.marginals((1, 1, 1, 1))))


def test_marginals_divide_where_a_cost_has_none_to_smooth():
    net = tiny_network()
    for cost in (Macs(net), Params(net)):
        np.testing.assert_array_equal(cost.smoothed(net.channels), cost.marginals(net.channels))
        assert np.all(cost.marginals(net.channels) > 0)


def test_the_config_s_cost_has_its_limits_and_so_of_another_network():
    config = small_config(
        **{"cost.resource": "params", "cost.batch_size": 3, "cost.limits.macs": 5e6,
           "cost.limits.activation_memory": 4e6}
    )  # fmt: skip
    net = tiny_network()
    cost = load_cost(parse(config).cost, net)
    assert [(name, most) for name, _, most in cost.limits] == [
        ("activation_memory", 4e6),
        ("macs", 5e6),
    ]
    other = cost.on(net.of((8, 8, 8, 8)))
    assert other.net.channels == (8, 8, 8, 8)
    assert other.batch_size == other.limits[0].cost.batch_size == 3
    assert all(limit.cost.net is other.net for limit in other.limits)
    record = other.record(other.net.channels)
    assert record == {
        "cost": other.net.params(other.net.channels),
        "unit": "params",
        "limits": {
            "activation_memory": other.limits[0].cost.of(other.net.channels),
            "macs": other.net.macs(other.net.channels),
        },
    }
