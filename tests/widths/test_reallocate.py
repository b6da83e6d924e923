"""Reallocation: properties over random networks, vectors, FURs and budgets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks import get_network
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.widths.budget import TOLERANCE, fit_to_budget
from furs_jax.widths.reallocate import move_channels, reallocate
from furs_jax.widths.sites import choose_sites, directed
from tests.conftest import tiny_network

STEP = {"step": 0.15, "step_decay": 0.01}


@st.composite
def problems(draw, names=("resnet8_cifar", "resnet14_cifar", "resnet20_cifar", "resnet18")):
    """A network, a vector near its initial one, FURs with ties, and a budget."""
    net = get_network(
        draw(st.sampled_from(names)),
        draw(st.sampled_from([0.5, 0.8, 1.0, 2.0])),
        10,
        draw(st.sampled_from(["max", "local"])),
        draw(st.sampled_from([(32, 32, 3), (28, 28, 1)])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    channels = [int(c * rng.uniform(0.5, 1.6)) + 1 for c in net.channels]
    furs = np.round(rng.normal(size=len(channels)), draw(st.integers(0, 6)))
    budget = int(net.macs(net.channels) * draw(st.floats(0.5, 1.5)))
    return net, channels, furs, budget


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 12))
def test_the_budget_is_met_and_never_exceeded(problem, num_layers):
    net, channels, furs, budget = problem
    options = dict(initial=net.channels, budget=budget, num_layers=num_layers, **STEP)
    following = reallocate(net, channels, furs, **options)
    assert 0 <= (budget - net.macs(following)) / budget <= TOLERANCE
    assert min(following) >= 4
    assert following == reallocate(net, channels, furs, **options)
    assert all(type(c) is int for c in following)


@settings(max_examples=30, deadline=None)
@given(problems(), st.sampled_from([2, 8, 16]))
def test_channel_multiples_are_kept_within_the_budget(problem, multiple):
    net, channels, furs, budget = problem
    smallest = net.macs([multiple * -(-4 // multiple)] * len(channels))
    options = dict(
        initial=net.channels, budget=budget, num_layers=3, channel_multiple=multiple, **STEP
    )
    if smallest > budget:
        with pytest.raises(BudgetError, match="can't be met"):
            reallocate(net, channels, furs, **options)
        return
    following = reallocate(net, channels, furs, **options)
    assert net.macs(following) <= budget
    assert all(c % multiple == 0 for c in following)
    # No single step up fits into what is left, unless that is within the tolerance.
    if budget - net.macs(following) > TOLERANCE * budget:
        for site in range(len(following)):
            wider = np.array(following) + multiple * np.eye(len(following), dtype=int)[site]
            assert net.macs(wider) > budget


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(-1, 9).map(lambda power: int(3.7 * 10**power)),
    st.integers(0, 6),
    st.sampled_from([1, 2, 3, 8]),
)
def test_few_sites_meet_any_budget_or_say_why_not(widths, budget, num_layers, multiple):
    net = Network("chain", Plain(tuple(widths), 4, 10, stages=1), (8, 8, 1))
    furs = np.cos(widths)
    options = dict(
        initial=widths, budget=budget, num_layers=num_layers, channel_multiple=multiple, **STEP
    )
    floor = multiple * -(-4 // multiple)
    if num_layers and net.macs([floor] * len(widths)) > budget:
        with pytest.raises(BudgetError, match="can't be met"):
            reallocate(net, widths, furs, **options)
        return
    found = np.array(reallocate(net, widths, furs, **options))
    if num_layers == 0:
        assert found.tolist() == widths
        return
    assert net.macs(found) <= budget
    assert np.all(found % multiple == 0)
    assert found.min() >= floor
    # Not even one step at every site fits besides.
    assert net.macs(found + multiple) > budget


def test_a_budget_that_can_t_be_counted_is_refused():
    with pytest.raises(BudgetError, match="too large; give at most"):
        fit_to_budget(tiny_network(), (8, 8, 8, 8), 10**25)


def test_what_is_left_of_a_budget_does_not_starve_a_site():
    net = Network("chain", Plain((16, 16, 16), 4, 10, stages=1), (8, 8, 1))
    for budget in (1_000_000, 1_234_567, 10**8):
        found = fit_to_budget(net, net.channels, budget)
        assert max(found) < 2 * min(found)


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 12), st.integers(1, 8))
def test_only_the_chosen_sites_move_before_the_rescaling(problem, num_layers, multiple):
    net, channels, furs, _ = problem
    increased, decreased = choose_sites(furs, num_layers)
    assert not set(increased) & set(decreased)
    assert len(increased) == len(decreased) == min(num_layers, len(furs) // 2)
    moved = move_channels(
        channels,
        increased,
        decreased,
        initial=net.channels,
        min_channels=4,
        channel_multiple=multiple,
        **STEP,
    )
    for site, (old, new) in enumerate(zip(channels, moved, strict=True)):
        if site in increased:
            assert new >= old
        elif site in decreased:
            assert new <= old
            assert new >= min(old, 4)
        else:
            assert new == old


def test_steps_follow_the_rule():
    net = get_network("resnet14_cifar")
    furs = np.arange(12)[::-1]  # the first site is best
    moved = move_channels(
        net.channels,
        *choose_sites(furs, 3),
        initial=net.channels,
        step=0.3,
        step_decay=0.1,
        min_channels=4,
        channel_multiple=1,
    )
    # 0.3, 0.2, 0.1 of the initial 16 up; of 64 down, the last site most.
    expected = [16 + 5, 16 + 3, 16 + 2, 16, 32, 32, 32, 32, 64, 64 - 6, 64 - 13, 64 - 19]
    assert list(moved) == expected


def test_steps_are_relative_to_the_initial_vector_and_stop_at_the_floor():
    moved = move_channels(
        (10, 5, 3),
        [0],
        [1, 2],
        initial=(100, 40, 40),
        step=0.1,
        step_decay=0.0,
        min_channels=4,
        channel_multiple=1,
    )
    assert moved == (20, 4, 3)


def test_ties_go_to_the_lower_index():
    assert choose_sites([1.0, 1.0, 1.0, 1.0, 1.0], 2) == ([0, 1], [2, 3])
    assert choose_sites([2.0, 5.0, 5.0, 2.0, 3.0], 2) == ([1, 2], [0, 3])


def test_no_layers_change_nothing():
    net = tiny_network()
    channels = [7, 7, 7, 7]
    options = dict(initial=net.channels, budget=1, num_layers=0, **STEP)
    assert reallocate(net, channels, np.zeros(4), **options) == tuple(channels)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_furs_that_are_not_finite_are_refused(bad):
    with pytest.raises(ConfigError, match="finite"):
        choose_sites([1.0, bad], 1)


def test_lengths_must_agree():
    net = tiny_network()
    with pytest.raises(ConfigError, match="equally long, not 4, 3, 4"):
        reallocate(
            net,
            net.channels,
            [1, 2, 3],
            initial=net.channels,
            budget=10**6,
            num_layers=1,
            **STEP,
        )


def test_an_impossible_budget_says_what_is_possible():
    net = get_network("resnet20_cifar")
    smallest = net.macs([4] * 18)
    with pytest.raises(BudgetError, match=f"still needs {smallest:,}"):
        fit_to_budget(net, net.channels, smallest - 1)
    assert fit_to_budget(net, net.channels, smallest) == (4,) * 18


def test_a_vector_within_the_tolerance_is_left_alone():
    net = get_network("resnet18")
    assert fit_to_budget(net, net.channels, net.macs(net.channels)) == net.channels


def test_the_fit_is_near_the_best_there_is():
    # Four sites: all vectors can be tried, in the neighbourhood of what was found.
    net = tiny_network()
    rng = np.random.default_rng(0)
    for _ in range(20):
        channels = [int(c) for c in rng.integers(4, 20, 4)]
        budget = int(net.macs(channels) * rng.uniform(0.8, 1.2))
        try:
            found = np.array(fit_to_budget(net, channels, budget))
        except BudgetError:
            assert net.macs([4] * 4) > budget
            continue
        near = [found + np.array(d) for d in itertools.product((-1, 0, 1), repeat=4)]
        gaps = [budget - net.macs(v) for v in near if v.min() >= 4]
        best = min(gap for gap in gaps if gap >= 0)
        gap = budget - net.macs(found)
        assert gap <= TOLERANCE * budget or gap == best


def test_controls_rank_at_random_or_in_reverse():
    furs = [0.3, 0.1, 0.5, 0.2]
    assert choose_sites(directed(furs, "fur", 0), 1) == ([2], [1])
    assert choose_sites(directed(furs, "reversed", 0), 1) == ([1], [2])
    orders = {tuple(directed(furs, "random", seed)) for seed in range(50)}
    assert len(orders) > 10
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert np.array_equal(directed(furs, "random", 3), directed(furs[::-1], "random", 3))
