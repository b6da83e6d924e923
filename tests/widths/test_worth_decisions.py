"""A search by the surface on simulated tasks: what it answers, how sure it is, when it stops."""

import itertools

import numpy as np
import pytest

from configs.default import get_config
from furs_jax.widths.worth.decisions import (
    RULES,
    Answer,
    decide,
    mirrored,
    most_telling,
)
from furs_jax.widths.worth.decisions import _Candidates as Candidates
from furs_jax.widths.worth.spaces import Listed
from furs_jax.widths.worth.surface import Noise, Surface, features

SITES = 5
NOISE = Noise(0.2)


@pytest.fixture(scope="module")
def space():
    """Widths of 1 to 4 steps at five sites, of a chain whose first costs most."""
    vectors = np.array(list(itertools.product((1, 2, 3, 4), repeat=SITES)))
    cost = np.array([4.0, 2, 2, 1, 1])
    costs = vectors[:, :-1] * vectors[:, 1:] @ cost[:-1] + vectors @ cost
    reference = (2,) * SITES
    budget = float(costs[(vectors == 2).all(axis=1)][0])
    steps = np.eye(SITES, dtype=int)
    at = {tuple(v): c for v, c in zip(vectors.tolist(), costs, strict=True)}
    elasticities = [(at[tuple(2 + s)] - at[tuple(2 - s)]) / budget for s in steps]
    return Listed(vectors, costs, reference, elasticities, budget)


def _searched(space, worth, seed, rules=RULES) -> tuple[Answer, list]:
    rng, tried, scores = np.random.default_rng((seed, 1)), [], []
    told, following = decide(space, tried, scores, NOISE, seed, rules)
    while following:
        tried.append(following[0])
        value = features(space.offsets(following))[0] @ worth
        scores.append(70 + value + 0.2 * rng.normal())
        told, following = decide(space, tried, scores, NOISE, seed, rules)
    return told, tried


def _worth(space, seed, spread):
    rng = np.random.default_rng((seed, 2))
    slopes = space.elasticities * rng.uniform(0.3, 1) + spread * rng.normal(size=SITES)
    return np.concatenate([slopes, 0.1 * rng.exponential(size=SITES)])


def _gain(space, worth, vector):
    return float(features(space.offsets([vector]))[0] @ worth)


def test_gains_where_there_are_some_and_knows_how_much(space):
    """The winner's curse included: the interval is that of the vector that was chosen."""
    rules = RULES._replace(most=12, least=-1.0, draws=300)
    found, there, held = [], [], []
    for seed in range(40):
        worth = _worth(space, seed, 0.3)
        told, _ = _searched(space, worth, seed, rules)
        found.append(_gain(space, worth, told.channels))
        within = [tuple(v) for v in space.vectors[space._within].tolist()]
        there.append(np.max(features(space.offsets(within)) @ worth))
        if told.channels != space.reference:
            held.append(told.low <= found[-1] <= told.high)
    assert np.mean(found) > 0.7 * np.mean(there) > 0.2
    assert np.mean(held) >= 0.88


def test_nothing_is_sure_where_there_is_nothing(space):
    """Slopes as the cost's: of 40 tasks few answers differ, and those claim nothing for sure."""
    rules = RULES._replace(most=10, draws=200)
    answers, trained = [], []
    for seed in range(40):
        worth = np.concatenate([space.elasticities * 0.5, space.elasticities * 0.3])
        told, tried = _searched(space, worth, seed, rules)
        answers.append(told)
        trained.append(len(tried))
    assert np.mean([a.channels == space.reference for a in answers]) > 0.6
    assert np.mean([a.sure for a in answers]) <= 0.05
    worst = min(_gain(space, worth, a.channels) for a in answers)
    assert np.mean([_gain(space, worth, a.channels) for a in answers]) > -0.05 > worst - 1


def test_stops_when_knowing_more_would_gain_little(space):
    worth = np.array([0.9, 0.02, 0.02, 0.9, 0.02, *np.full(5, 0.02)])
    patient, eager = (
        len(_searched(space, worth, 3, RULES._replace(most=20, least=least, draws=200))[1])
        for least in (-1.0, 1.0)
    )
    assert patient == 20
    assert RULES.first <= eager < 12


def test_sites_that_surely_matter_are_named(space):
    worth = np.array([0.0, 1.5, 0.2, 0.2, 0.1, *np.full(5, 0.05)])
    told, _ = _searched(space, worth, 0, RULES._replace(most=20, least=-1.0))
    assert told.sure
    assert 1 in told.wider
    assert 0 in told.narrower
    assert not set(told.wider) & set(told.narrower)


def test_what_gains_less_than_what_counts_is_not_worth_leaving_the_reference_for(space):
    """The same trainings, judged by rules on either side of what is expected."""
    mirrors = mirrored(space, 8, 0)
    scores = 70 + features(space.offsets(mirrors)) @ _worth(space, 2, 0.3)
    found = decide(space, mirrors, scores, NOISE, 0, RULES._replace(least=0.0)).answer
    assert found.gain > 0
    share = found.gain / found.noise
    for least, stays in ((0.99 * share, False), (1.01 * share, True)):
        answer = decide(space, mirrors, scores, NOISE, 0, RULES._replace(least=least)).answer
        assert (answer.channels == space.reference) == stays
        known = (answer.gain, answer.low, answer.high)
        assert known == ((0, 0, 0) if stays else (found.gain, found.low, found.high))


def test_first_vectors_are_mirrored_and_keyed(space):
    first = mirrored(space, 4, 0)
    assert first == mirrored(space, 4, 0) != mirrored(space, 4, 1)
    assert mirrored(space, 3, 0) == first[:3]
    shares = np.exp([space._shares[space.vectors.tolist().index(list(v))] for v in first])
    assert np.ptp(shares) > 0.2
    even = mirrored(space, 4, 0, shares=(1.0, 1.0))
    shares = np.exp([space._shares[space.vectors.tolist().index(list(v))] for v in even])
    assert np.ptp(shares) < 0.2
    for one, other in zip(first[::2], first[1::2], strict=True):
        one, other = space.offsets([one, other])
        one, other = one - np.mean(one), other - np.mean(other)
        assert one @ other < -0.5 * np.linalg.norm(one) * np.linalg.norm(other)


def test_next_is_a_function_of_what_was_trained(space):
    """Killed and asked again, the search goes on in the same way."""
    _, tried = _searched(space, _worth(space, 1, 0.2), 1, RULES._replace(most=8, least=-1.0))
    _, again = _searched(space, _worth(space, 1, 0.2), 1, RULES._replace(most=8, least=-1.0))
    assert tried == again
    shorter = _searched(space, _worth(space, 1, 0.2), 1, RULES._replace(most=6, least=-1.0))[1]
    assert shorter == tried[:6]


def test_several_may_be_trained_at_once(space):
    """First mirrors, then bets of different draws; the first is the one that alone would be."""
    rules = RULES._replace(most=9, least=-1.0, draws=200)
    worth = _worth(space, 1, 0.3)
    tried, scores = [], []
    for batch, size in enumerate((2, 3, 3, 1)):
        known = (space, tried, scores, NOISE, 0, rules)
        following = decide(*known, count=3).following
        assert len(following) == len(set(following)) == size
        assert following[:1] == decide(*known).following
        if batch == 0:
            assert following == tuple(mirrored(space, 2, 0))
        tried += following
        scores += list(70 + features(space.offsets(following)) @ worth)
    assert decide(space, tried, scores, NOISE, 0, rules, count=3).following == ()


def test_the_reference_may_be_trained_before_the_mirrors(space):
    rules = RULES._replace(draws=100)
    first = decide(space, [space.reference], [70.0], NOISE, 0, rules, count=9).following
    assert list(first) == mirrored(space, 2, 0)


def test_the_most_telling_is_the_one_after_which_the_best_is_best():
    """Against many simulated trainings of each of three vectors."""
    rng = np.random.default_rng(0)
    gains = rng.normal(size=(4000, 3)) @ np.diag([0.0, 0.1, 0.5]) + [0.1, 0.12, 0.0]
    surface = Surface(np.zeros(4000), np.zeros((4000, 2)), np.full(4000, 0.3), np.zeros(4000))
    chosen = most_telling(surface, Candidates([(1,), (2,), (3,)], gains))
    values = []
    for place in range(3):
        seen = gains[:, place] + 0.3 * rng.normal(size=4000)
        slopes = [np.polyfit(seen, gains[:, c], 1) for c in range(3)]
        values.append(np.mean(np.max([np.polyval(s, seen) for s in slopes], axis=0)))
    assert chosen == ((1,), (2,), (3,))[int(np.argmax(values))] == (3,)


def test_the_rules_that_are_benchmarked_are_those_of_a_search():
    options = get_config().response
    assert (RULES.most, RULES.least) == (options.max_trainings, options.least_gain)
