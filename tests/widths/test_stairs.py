"""A cost of stairs, known at some widths: vectors keep to them, and end on edges."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furs_jax.costs import Cost, Limit
from furs_jax.costs.macs import Macs
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.options.parse import parse
from furs_jax.options.units import amount, enough
from furs_jax.widths.bounds import known_widths, site_bounds
from furs_jax.widths.budget import TOLERANCE, fit_to_budget
from furs_jax.widths.reallocate import move_channels, reallocate
from furs_jax.widths.worth.whole import Whole
from tests.small_runs import small_config
from tests.stairs import COUNT, UNITS, Stairs

NET = Network("chain", Plain((9, 13, 14), 4, 10, stages=1), (8, 8, 1))
STAIRS = np.arange(1, COUNT + 1)
OPTIONS = parse(small_config()).reallocate


def grid(low=1, high=99):
    """All vectors whose cost is known."""
    own = [[int(w) for w in unit * STAIRS if low <= w <= high] for unit in UNITS]
    return list(itertools.product(*own))


def wider(found):
    """With one site wider."""
    for site, unit in enumerate(UNITS):
        for width in range(found[site] + unit, COUNT * unit + 1, unit):
            yield (*found[:site], width, *found[site + 1 :])


@st.composite
def problems(draw):
    """A cost, a budget that some vector may meet, bounds, and proportions."""
    cost = Stairs(NET, draw(st.integers(0, 999)))
    low, high = draw(st.integers(1, 6)), draw(st.sampled_from([8, 12, 15, 99]))
    fixed = draw(st.sampled_from([None, "block1"]))
    options = dataclasses.replace(
        OPTIONS, min_channels=low, max_channels=high, fixed=fixed and NET.site_names[1]
    )
    bounds = site_bounds(options, NET, (8, 12, 12), cost=cost)
    allowed = [v for v in grid() if bounds.hold(v)]
    costs = sorted(cost.of(v) for v in allowed)
    share = draw(st.floats(-0.1, 1.1))
    budget = costs[0] + share * (costs[-1] - costs[0])
    if draw(st.booleans()):
        macs = NET.macs(allowed[draw(st.integers(0, len(allowed) - 1))])
        cost.limits = (Limit("macs", Macs(NET), macs),)
    target = draw(st.lists(st.integers(1, 30), min_size=3, max_size=3))
    return cost, budget, bounds, allowed, target


@settings(max_examples=50, deadline=None)
@given(problems())
def test_vectors_are_known_and_end_on_edges_within_budget_and_limits(problem):
    cost, budget, bounds, allowed, target = problem
    fits = [v for v in allowed if cost.of(v) <= budget and cost.within(v)]
    try:
        found = fit_to_budget(NET, target, budget, cost=cost, **bounds._asdict())
    except BudgetError:
        assert min(allowed) not in fits  # of all sites the narrowest
        assert cost.limits or not fits
        if not fits:
            needed = "" if cost.limits else amount(min(map(cost.of, allowed)))
            message = f"at the cheapest widths found chain still needs {needed}"
            with pytest.raises(BudgetError, match=message):
                fit_to_budget(NET, target, budget, cost=cost, **bounds._asdict())
        return
    assert found in fits
    own = cost.of(found)
    assert all(cost.of(v) > own for v in wider(found) if v in fits)
    if budget - own > TOLERANCE * budget:
        ups = [np.add(found, np.multiply(UNITS, ups)) for ups in np.ndindex(2, 2, 2)]
        near = [v for v in map(tuple, ups) if v in fits]
        assert max(map(cost.of, near)) == own


def tabled(*tables):
    """A cost of these tables, each of one site, the last number for all wider ones."""
    cost = Stairs(NET)
    for own, table in zip(cost._table, tables, strict=True):
        own[:] = table[-1]
        own[: len(table)] = table
    return cost


@pytest.mark.parametrize(
    ("table", "units", "budget", "expected"),
    [
        # Beyond a dent, where one factor for all is not monotone.
        ([[1, 5, 5, 5, 1.5, 2]] * 3, 1, 6.0, (16, 24, 32)),
        # The first site saves what the second then uses; the third is a step of many.
        ([[4, 1, 9], [1, 3, 9], [1, 9]], 1, 6.0, (4, 6, 4)),
        # The first site narrower, and slower, would use up the budget, too.
        ([[5, 1, 9], [1, 2, 4, 9], [1, 3, 8, 20]], 2, 10.0, (4, 3, 12)),
        # Over a bump.
        ([[1, 2, 1, 9], [1, 9], [1, 9]], 1, 3.5, (6, 3, 4)),
    ],
)
def test_widths_end_on_the_edges_of_stairs(table, units, budget, expected):
    cost = tabled(*table)
    target = np.multiply(UNITS, units)
    assert fit_to_budget(NET, target, budget, 1, UNITS, cost, cost.widest()) == expected


class Sum(Cost):
    name = unit = "sum"

    def of(self, channels):
        return int(sum(channels))


@pytest.mark.parametrize(
    ("first", "expected"), [([1], (8, 18, 24)), ([1, 1, 1, 1, 0.5], (10, 15, 24))]
)
def test_of_what_is_free_the_cheapest_comes_first_then_the_narrowest(first, expected):
    """By 8, 15, 24 a limit leaves one step, which the second site is the most behind by."""
    cost = tabled(first, [1], [1])
    cost.limits = (Limit("sum", Sum(NET), 50),)
    assert fit_to_budget(NET, (40, 73, 120), 3.0, 1, UNITS, cost, cost.widest()) == expected


def test_a_stepped_limit_is_kept_where_only_wider_ones_keep_it():
    cost, limit = Macs(NET), tabled(*[[9, 9, 1, 2, 3, 4, 5, 6]] * 3)
    cost.limits = (Limit("stairs", limit, 3.5),)
    found = fit_to_budget(NET, NET.channels, 10**6, 1, UNITS, cost, limit.widest())
    assert found == (6, 9, 12)
    cost.limits = (Limit("stairs", limit, 2.31),)
    with pytest.raises(BudgetError, match=r"needs 3 ms; give at least \S+stairs=3, or"):
        fit_to_budget(NET, NET.channels, 10**6, 1, UNITS, cost, limit.widest())
    limit._table += 0.11
    with pytest.raises(BudgetError, match=r"stairs=2.31 can't .* give at least \S+stairs=3.33, or"):
        fit_to_budget(NET, NET.channels, 10**6, 1, UNITS, cost, limit.widest())


def test_what_may_be_free_for_ever_is_refused():
    with pytest.raises(ConfigError, match="its class needs `widest`"):
        fit_to_budget(NET, NET.channels, 30.0, 1, UNITS, Stairs(NET))


@settings(max_examples=30, deadline=None)
@given(problems(), st.integers(0, 99))
def test_reallocation_and_surfaces_ask_for_known_widths_only(problem, seed):
    """From vectors that are none, such as the original; `Stairs.of` refuses all others."""
    cost, _, bounds, _, _ = problem
    budget, cost.limits = cost.of(cost.widest()), ()
    rng = np.random.default_rng(seed)
    floor = [low for low, *_ in zip(*bounds, strict=True)]
    options = {"initial": NET.channels, "budget": budget, "num_layers": 1, "step": 0.3}
    try:
        fit_to_budget(NET, floor, budget, cost=cost, **bounds._asdict())
    except BudgetError:
        return
    found = reallocate(
        NET, NET.channels, rng.normal(size=3), cost=cost, **options, **bounds._asdict()
    )
    assert bounds.hold(found)
    space = Whole(NET, budget, NET.channels, cost, **bounds._asdict())
    slopes = rng.uniform(0.1, 2, 3)
    for vector in (
        space.near(rng.normal(size=3), 0.9),
        space.best(np.concatenate([slopes, slopes / 4])),
    ):
        assert bounds.hold(vector)
        assert cost.of(vector) <= budget


def test_a_chosen_site_moves_by_its_own_unit_at_least():
    moves = {"initial": NET.channels, "step": 0.01, "step_decay": 0.0, "min_channels": 1}
    moved = move_channels((9, 13, 14), [0], [2], channel_multiple=(1, 2, 4), **moves)
    assert moved == (9, 13, 10)
    moved = move_channels((9, 13, 14), [1, 0], [], channel_multiple=(1, 2, 4), **moves)
    assert moved == (9, 15, 14)


def test_marginals_are_of_a_unit_of_each_site_and_one_sided_at_the_ends():
    cost = Stairs(NET, 3)
    table, vector = cost._table, (2, 9, 32)
    expected = [
        (table[0, 1] - table[0, 0]) / 2,
        (table[1, 3] - table[1, 1]) / 6,
        (table[2, 7] - table[2, 6]) / 4,
    ]
    np.testing.assert_allclose(cost.marginals(vector), expected)
    np.testing.assert_allclose(cost.marginals((1, 8, 40)), expected)  # the nearest that is known


def test_bounds_are_those_of_the_cost_its_limits_and_the_options():
    cost = Macs(NET)
    assert known_widths(cost, 1) == (1, np.inf)
    assert site_bounds(OPTIONS, NET, cost=cost) == site_bounds(OPTIONS, NET)
    cost.limits = (Limit("stairs", Stairs(NET), 30.0),)
    options = dataclasses.replace(OPTIONS, channel_multiple=2, max_channels=20)
    bounds = site_bounds(options, NET, cost=cost)
    assert bounds.channel_multiple == (2, 6, 4)
    assert bounds.max_channels == (16, 20, 20)
    assert bounds.hold((16, 18, 20))
    assert not bounds.hold((16, 15, 20))
    with pytest.raises(
        ConfigError, match=r"leave no width for \S+ that is a multiple of 2 up to 16"
    ):
        site_bounds(dataclasses.replace(options, min_channels=17), NET, cost=cost)


@pytest.mark.parametrize(
    ("cost", "shown", "given"),
    [
        (2.31, "2.31", "2.31"),
        (2.3100049, "2.31", "2.3101"),
        (0.00123456, "0.0012346", "0.0012346"),
        (1234.5678, "1,234.6", "1234.6"),
        (123456.7, "123,457", "123457"),
        (1234567, "1,234,567", "1234567"),
        (np.float64(3.0), "3", "3"),
        (2.0**60, "1.1529e+18", "1152921504606846976"),
    ],
)
def test_amounts_read_well_and_what_is_to_be_given_is_enough(cost, shown, given):
    assert amount(cost) == shown
    assert enough(cost) == given
    assert float(enough(cost)) >= cost
