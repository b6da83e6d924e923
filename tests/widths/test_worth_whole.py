"""The best vector of whole channels within a budget, against all of them."""

import itertools

import numpy as np
import pytest

from furs_jax.costs import Cost
from furs_jax.costs.macs import Macs
from furs_jax.networks import get_network
from furs_jax.widths.budget import TOLERANCE
from furs_jax.widths.worth.spaces import Listed
from furs_jax.widths.worth.surface import features
from furs_jax.widths.worth.whole import Whole
from tests.conftest import tiny_network

SIZES = np.array([64, 64, 16, 16, 4])  # of feature maps: images, then each layer's


class Chain(Cost):
    """Of a chain of 3x3 convolutions; of one vector or many."""

    name = unit = "MACs"

    def of(self, channels):
        widths = np.moveaxis(np.asarray(channels, float), -1, 0)
        before, after = [1 + 0 * widths[0], *widths], [*widths, 10 + 0 * widths[0]]
        return sum(9 * size * b * a for size, b, a in zip(SIZES, before, after, strict=True))


@pytest.fixture(scope="module")
def space():
    net = tiny_network()
    cost = Chain(net)
    return Whole(net, float(cost.of((12, 14, 16, 20))), (12, 14, 16, 20), cost, min_channels=2)


@pytest.fixture(scope="module")
def everything(space):
    """All vectors within reach that use the budget to the tolerance."""
    ranges = [range(int(np.ceil(c / 2)), int(c * 2) + 1) for c in space.reference]
    vectors = np.array(list(itertools.product(*ranges)))
    shares = Chain(None).of(vectors) / Chain(None).of(space.reference)
    return vectors[(shares <= 1) & (shares >= 1 - TOLERANCE)]


def _worth(space, seed):
    rng = np.random.default_rng(seed)
    slopes = space.elasticities * rng.uniform(0.3, 2) + rng.normal(size=4) * rng.uniform(0, 0.4)
    curvatures = np.abs(rng.normal(size=4)) * rng.uniform(0.01, 0.5)
    return np.concatenate([slopes, curvatures])


def test_no_vector_at_the_budget_is_better(space, everything):
    short = []
    for seed in range(20):
        worth = _worth(space, seed)
        found = space.best(worth)
        assert _share(space, found) <= 1
        assert all(0.5 <= c / r <= 2 for c, r in zip(found, space.reference, strict=True))
        best = np.max(features(space.offsets(everything)) @ worth)
        short.append(best - features(space.offsets([found]))[0] @ worth)
    # Single channels are coarse here, so that now and then a change of more sites is missed.
    assert np.mean(np.array(short) < 1e-9) >= 0.7
    assert np.max(short) < 0.02


def test_the_budget_is_used():
    net = get_network("resnet8_cifar", 1.0, 10, "max", (32, 32, 3))
    space = Whole(net, net.macs(net.channels))
    for seed in range(4):
        slopes = space.elasticities * np.random.default_rng(seed).uniform(0, 2, len(net.channels))
        found = space.best(np.concatenate([slopes, slopes / 4]))
        assert 1 - 2 * TOLERANCE <= net.macs(found) / net.macs(net.channels) <= 1


def test_what_each_site_costs_alone_is_right_leaves_the_reference():
    """Slopes as elasticities are, and diminishing returns: no other vector is better."""
    net = get_network("resnet14_cifar", 1.0, 10, "max", (32, 32, 3))
    space = Whole(net, net.macs(net.channels))
    worth = np.concatenate([space.elasticities, space.elasticities])
    found = space.offsets([space.best(worth)])
    assert np.max(np.abs(found)) < 0.1


def test_near_keeps_proportions_and_meets_the_share():
    net = get_network("resnet14_cifar", 1.0, 10, "max", (32, 32, 3))
    space = Whole(net, net.macs(net.channels))
    wanted = np.tile([0.4, -0.4], 6)
    found = space.near(wanted, 0.8)
    assert 0.799 <= net.macs(found) / net.macs(net.channels) <= 0.8
    apart = space.offsets([found])[0] - wanted
    assert np.ptp(apart) < 0.25


def test_a_centre_takes_it_farther():
    """Where most is worth something at one site alone, which is far too narrow."""
    net = tiny_network()
    cost = Chain(net)
    reference = (12, 14, 16, 4)
    budget = float(cost.of(reference))
    worth = np.array([0.0, 0, 0, 1, 0, 0, 0, 0])
    centre, widest = None, []
    for _ in range(3):
        centre = Whole(net, budget, reference, cost, min_channels=2, centre=centre).best(worth)
        widest.append(centre[3])
    assert widest == [8, 16, 32]


@pytest.mark.parametrize("name", ["resnet14_cifar", "mnasnet_cifar", "densenet16_cifar"])
def test_macs_by_formula_are_those_of_the_network(name):
    net = get_network(name, 0.5, 10, image_shape=(16, 16, 1))
    quick, cost = Whole(net, net.macs(net.channels))._cost, Macs(net)
    rng = np.random.default_rng(0)
    for _ in range(20):
        vector = rng.integers(2, 3 * np.array(net.channels))
        assert quick.of(vector) == cost.of(vector)
        np.testing.assert_array_equal(quick.marginals(vector), cost.marginals(vector))


def test_a_list_gives_the_best_that_it_has_within_the_budget():
    vectors = np.array(list(itertools.product((1, 2, 3, 4), repeat=3)))
    costs = np.sum(vectors, axis=1)
    space = Listed(vectors, costs, (2, 2, 2), np.full(3, 1 / 3), 6)
    worth = np.array([1.0, 0.2, 0.1, 0.01, 0.01, 0.01])
    values = {
        tuple(v): features(space.offsets([v]))[0] @ worth for v in vectors.tolist() if sum(v) <= 6
    }
    assert space.best(worth) == max(values, key=values.get)
    assert space.near(np.log([2, 0.5, 1]), 7 / 6) == (4, 1, 2)


def _share(space, vector):
    cost = Chain(None)
    return cost.of(vector) / cost.of(space.reference)
