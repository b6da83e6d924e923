"""Limits beside the budget, and bounds of sites: never exceeded, and the budget is used up."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furs_jax.costs import Cost, Limit
from furs_jax.costs.macs import Macs
from furs_jax.costs.params import Params
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks import get_network
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.options.parse import defaults, parse
from furs_jax.widths.bounds import site_bounds
from furs_jax.widths.budget import TOLERANCE, fit_to_budget
from furs_jax.widths.kept import removed_within
from furs_jax.widths.reallocate import reallocate
from furs_jax.widths.worth.whole import Whole
from tests.small_runs import small_config

NETS = [
    get_network("resnet8_cifar", 0.5, 10, image_shape=(8, 8, 1)),
    get_network("resnet14_cifar", 0.5, 10, "local", (16, 16, 3)),
    Network("chain", Plain((16, 24, 32), 4, 10, stages=1), (8, 8, 1)),
]


class Widest(Cost):
    """A resource that only the widest site counts in: most marginals are zero."""

    name = unit = "widest"

    def of(self, channels):
        return int(max(channels))


def limited(net, kind, resource, most) -> Cost:
    cost = kind(net)
    cost.limits = (Limit("params", resource(net), most),)
    return cost


def slack(cost) -> Cost:
    """The same without limits."""
    return type(cost)(cost.net)


@st.composite
def problems(draw):
    """A network, a vector, a budget that it can meet, and a limit on something else."""
    net = draw(st.sampled_from([NETS[0], NETS[2]]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    channels = [int(c * rng.uniform(0.6, 1.5)) + 1 for c in net.channels]
    kind, other = draw(st.sampled_from([(Macs, Params), (Params, Macs), (Macs, Widest)]))
    budget = int(kind(net).of(net.channels) * draw(st.floats(0.5, 1.5)))
    unlimited = fit_to_budget(net, channels, budget, cost=kind(net))
    share = draw(st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0, 2.0]))
    cost = limited(net, kind, other, int(share * other(net).of(unlimited)))
    return net, channels, budget, cost, unlimited, rng.normal(size=len(channels))


@settings(max_examples=25, deadline=None)
@given(problems())
def test_limits_are_never_exceeded_and_slack_ones_change_nothing(problem):
    net, channels, budget, cost, unlimited, furs = problem
    ((_, resource, most),) = cost.limits
    moves = {"initial": net.channels, "budget": budget, "num_layers": 2, "step": 0.2, "cost": cost}
    if resource.of([4] * len(channels)) > most:
        least = resource.of([4] * len(channels))
        with pytest.raises(BudgetError, match=f"at least --config.cost.limits.params={least}"):
            fit_to_budget(net, channels, budget, cost=cost)
        with pytest.raises(BudgetError, match="can't be kept"):
            reallocate(net, channels, furs, **moves)
        return
    found = fit_to_budget(net, channels, budget, cost=cost)
    for vector in (found, reallocate(net, channels, furs, **moves)):
        assert cost.of(vector) <= budget
        assert resource.of(vector) <= most
        assert min(vector) >= 4
    if 2 * resource.of(unlimited) <= most:
        assert found == unlimited


@pytest.mark.parametrize("net", NETS[:2], ids=lambda net: net.name)
@pytest.mark.parametrize("share", [0.95, 0.8, 0.7])
def test_the_budget_is_used_beside_a_limit_that_its_own_proportions_exceed(net, share):
    """MACs to a thousandth, with fewer parameters: channels are moved to where maps are large."""
    budget, params = net.macs(net.channels), net.params(net.channels)
    cost = limited(net, Macs, Params, share * params)
    found = fit_to_budget(net, net.channels, budget, cost=cost)
    assert 0 <= budget - net.macs(found) <= TOLERANCE * budget
    assert net.params(found) <= share * params
    # It moves no more channels than that takes.
    assert net.params(found) > 0.95 * share * params
    # And the other way round: parameters to the integer, fewer MACs.
    cost = limited(net, Params, Macs, share * budget)
    found = fit_to_budget(net, net.channels, params, cost=cost)
    assert 0 <= params - net.params(found) <= TOLERANCE * params
    assert 0.95 * share * budget < net.macs(found) <= share * budget


def test_half_the_parameters_at_the_same_macs_narrow_a_stage_alike():
    """A limit far from what the proportions need, which single steps would not come to."""
    net = get_network("resnet18", 0.25, 10, image_shape=(32, 32, 3))
    budget, most = net.macs(net.channels), net.params(net.channels) // 2
    found = fit_to_budget(net, net.channels, budget, cost=limited(net, Macs, Params, most))
    assert 0 <= budget - net.macs(found) <= TOLERANCE * budget
    assert 0.98 * most < net.params(found) <= most
    for stage in np.split(np.array(found), 4):
        assert max(stage) < 1.4 * min(stage)


def test_two_limits_at_once():
    net = NETS[0]
    budget = net.macs(net.channels)
    cost = limited(net, Macs, Params, 0.9 * net.params(net.channels))
    cost.limits += (Limit("macs", Widest(net), 28),)
    found = fit_to_budget(net, net.channels, budget, cost=cost)
    assert cost.within(found)
    assert max(found) <= 28
    assert net.macs(found) > 0.99 * budget


def test_the_best_vector_by_a_surface_keeps_to_limits():
    """Whatever worth is: of the first networks and of the answer."""
    net = NETS[0]
    budget = net.macs(net.channels)
    cost = limited(net, Macs, Params, 0.9 * net.params(net.channels))
    start = fit_to_budget(net, net.channels, budget, cost=cost)
    space = Whole(net, budget, start, cost, max_channels=[9, *[np.inf] * 5])
    rng = np.random.default_rng(0)
    for share in (0.6, 1.0, 1.5):
        for _ in range(5):
            near = space.near(rng.normal(0, 0.5, len(start)), share)
            assert cost.within(near)
            assert near[0] <= 9
            assert cost.of(near) <= share * budget


def test_a_pruned_network_keeps_to_limits():
    net = NETS[0]
    ranks = [np.arange(c) for c in net.channels]
    params = net.params(net.channels)

    def of(small):
        return limited(small, Macs, Params, 0.6 * params)

    for least, most in ((1, np.inf), ([8, 1, 1, 1, 1, 1], [8, 8, 16, 16, 12, 12])):
        removed = removed_within(net, ranks, net.macs(net.channels), of, least, most)
        left = [c - len(own) for c, own in zip(net.channels, removed, strict=True)]
        assert net.params(left) <= 0.6 * params
        assert np.all(left >= np.asarray(least))
        assert np.all(left <= np.asarray(most))


def options(**given):
    config = small_config(**{f"reallocate.{name}": value for name, value in given.items()})
    return parse(config).reallocate


NET = NETS[0]
LAST = "stage3_block1_conv1,stage3_block1_conv2"


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ({}, [4] * 6, [np.inf] * 6),
        ({"fixed": "stage3_*"}, [4, 4, 4, 4, 32, 32], [*[np.inf] * 4, 32, 32]),
        ({"fixed": f" {LAST}"}, [4, 4, 4, 4, 32, 32], [*[np.inf] * 4, 32, 32]),
        ({"min_channels": "5,*_conv1=6, stage3_*=8"}, [6, 5, 6, 5, 8, 8], [np.inf] * 6),
        ({"min_channels": "stage3_*=8"}, [1, 1, 1, 1, 8, 8], [np.inf] * 6),
        ({"max_channels": 40}, [4] * 6, [40] * 6),
        ({"max_channels": "stage1_*=9"}, [4] * 6, [9, 9, *[np.inf] * 4]),
    ],
)
def test_names_and_patterns_bound_sites(given, low, high):
    bounds = site_bounds(options(**given), NET)
    assert (list(bounds.min_channels), list(bounds.max_channels)) == (low, high)


def test_bounds_hold_in_whatever_moves_channels():
    rng = np.random.default_rng(0)
    for multiple in (1, 3):
        bounds = site_bounds(
            options(fixed="stage2_*", min_channels="4,stage3_*=30", max_channels="stage1_*=9",
                    channel_multiple=multiple), NET
        )  # fmt: skip
        vector = NET.channels
        for _ in range(6):
            furs = rng.normal(size=6)
            vector = reallocate(
                NET, vector, furs, initial=NET.channels, budget=NET.macs(NET.channels),
                num_layers=2, step=0.3, **bounds._asdict(),
            )  # fmt: skip
            assert bounds.hold(vector)
            assert vector[2:4] == NET.channels[2:4]
            assert NET.macs(vector) <= NET.macs(NET.channels)


def test_a_fixed_site_takes_no_other_s_turn():
    """Ranked first, it leaves widening to the second; ranked last, narrowing to the next."""
    bounds = site_bounds(options(fixed="*1_block1_conv1,*3_block1_conv2"), NET)
    budget = NET.macs(NET.channels)
    found = reallocate(
        NET, NET.channels, [9, 8, 3, 3, 2, 1], initial=NET.channels, budget=budget, num_layers=1,
        step=0.4, **bounds._asdict(),
    )  # fmt: skip
    assert (found[0], found[5]) == (NET.channels[0], NET.channels[5])
    assert found[1] > 1.2 * NET.channels[1]
    assert found[4] < 0.8 * NET.channels[4]


def test_methods_that_prune_keep_one_channel_but_for_what_is_named():
    bounds = site_bounds(options(min_channels="4,stage3_*=8"), NET, least=1)
    assert bounds.min_channels == (1, 1, 1, 1, 8, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"fixed": "conv1"},
            r"fixed names 'conv1', which is no site of resnet8_cifar; they",
        ),
        ({"fixed": "stage1_*,,"}, "fixed names ''"),
        ({"min_channels": "4,stage9_*=8"}, r"min_channels names 'stage9_\*'"),
        ({"max_channels": "Stage1_*=8"}, r"max_channels names 'Stage1_\*'"),
        ({"max_channels": 3}, "leave no width for stage1_block1_conv1 that is a multiple of 1"),
        ({"max_channels": 7, "channel_multiple": 8}, "leave no width .* a multiple of 8"),
    ],
)
def test_names_of_nothing_are_refused_with_those_there_are(given, message):
    with pytest.raises(ConfigError, match=message):
        site_bounds(options(**given), NET)


def test_defaults_bound_nothing_but_by_the_number():
    assert defaults()["reallocate.fixed"] is None
    bounds = site_bounds(dataclasses.replace(options(), min_channels=1), NET)
    assert bounds.hold([1] * 6)
    assert bounds.hold([10_000] * 6)
