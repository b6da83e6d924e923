"""Ratios of whole blocks: against one plain pass for each draw, and a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.costs.macs import Macs
from furs_jax.furs.estimate import Branches
from furs_jax.furs.ratios import drop_rates
from furs_jax.furs.steps import draw_noise
from furs_jax.widths.block_moves import block_costs, last_branches
from tests.conftest import random_variables
from tests.deep_networks import deep
from tests.furs.measured import measure, preprocess
from tests.training.test_step import random_split

DRAWS, IMAGES = 2, 12


@pytest.fixture(scope="module")
def given():
    """A network, its variables, images, its branches, and (gate for each branch) -> losses."""
    net = deep("imagenet")
    variables, split = random_variables(net, net.channels), random_split(IMAGES)
    sites = last_branches(net)
    branches = Branches(tuple(sites.values()), block_costs(net, sites, Macs))
    images, module = preprocess(jnp.asarray(split.images)), net.module(net.channels)

    @jax.jit
    def losses(values):
        gates = [jnp.ones((IMAGES, 1, 1, 1)) for _ in net.channels]
        for site, value in zip(branches.sites, values, strict=True):
            gates[site] = value[:, None, None, None]
        logits = module.apply(variables, images, gates)
        return -jax.nn.log_softmax(logits)[np.arange(IMAGES), split.labels]

    return net, variables, split, branches, losses


def test_a_branch_is_dropped_for_some_images_and_doubled_for_none(given):
    net, variables, split, branches, losses = given
    options = {"draws": DRAWS, "base_drop_rate": 0.3, "variance_reduction": False, "seed": 3}
    found = measure(net, variables, split, devices=2, branches=branches, **options)
    count = len(branches.sites)
    rates = drop_rates((1,) * count, branches.costs, 0.3)
    assert rates[0] != rates[1]
    np.testing.assert_array_equal(found.drop_rates, rates)
    key, ones = jax.random.fold_in(jax.random.key(3), 0), np.ones((count, IMAGES), np.float32)
    base, rises = losses(ones), np.zeros((count, DRAWS, IMAGES))
    for draw in range(DRAWS):
        noise = draw_noise(key, jnp.arange(IMAGES), jnp.int32(draw), (1,) * count, None, 1)
        for branch, rate in enumerate(rates):
            values = ones.copy()
            values[branch] = np.where(noise[:, branch] >= rate, 1 / (1 - rate), 0)
            rises[branch, draw] = losses(values) - base
    ratios = rises.mean(axis=1) / (rates * branches.costs)[:, None]
    np.testing.assert_allclose(found.furs, ratios.mean(axis=1), rtol=2e-4)
    errors = ratios.std(axis=1, ddof=1) / np.sqrt(IMAGES)
    np.testing.assert_allclose(found.furs_stderr, errors, rtol=2e-4)
    difference = ratios[0] - ratios[1]
    apart = difference.mean() / (difference.std(ddof=1) / np.sqrt(IMAGES))
    np.testing.assert_allclose(found.apart[0, 1], apart, rtol=1e-3)
    assert "apart" not in found.as_json()


def test_fisher_of_a_branch_is_the_square_of_its_gate_s_gradient(given):
    net, variables, split, branches, losses = given
    found = measure(net, variables, split, branches=branches, method="fisher", base_drop_rate=0.3)
    ones = jnp.ones((len(branches.sites), IMAGES))
    slopes = jax.grad(lambda values: losses(values).sum())(ones)
    rates = found.drop_rates
    expected = rates / (2 * (1 - rates)) * np.mean(np.square(slopes), axis=1)
    np.testing.assert_allclose(found.furs, expected / (rates * branches.costs), rtol=2e-4)


def test_a_block_costs_what_the_network_without_it_saves(given):
    net, branches = given[0], given[3]
    assert branches.costs.tolist() == [
        net.macs(net.channels) - less.macs(less.channels)
        for less in (net.with_depths((1, 3)), net.with_depths((2, 2)))
    ]
    lone = deep("cifar").with_depths((1, 3))
    more = lone.with_depths((2, 3))
    expected = more.macs(more.channels) - lone.macs(lone.channels)
    assert block_costs(lone, last_branches(lone), Macs)[0] == expected
    # Of the blocks that a search began with: those behind would be others, in the same places.
    known = last_branches(net, (2, 2))
    left = (*net.channels[:6], *net.channels[8:])
    assert net.site_names[known[1]] == "stage2_block2_conv2"
    less = net.with_depths((2, 2)).macs(left)
    assert block_costs(net, known, Macs)[1] == net.macs(net.channels) - less
