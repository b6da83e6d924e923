"""How surely sites differ, against simulation, and when drawing ends."""

import numpy as np
import pytest

from furs_jax.data.batches import evaluation_batches
from furs_jax.furs.estimate import estimate_furs
from furs_jax.furs.significance import Sums, reachable, separation, spread, sure, what_draws_bought
from tests.conftest import random_variables
from tests.furs.measured import measure, preprocess
from tests.training.test_step import random_split


def test_auto_draws_until_the_groups_are_separated(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(300)
    batches = list(evaluation_batches(split, 100))

    def draws(num_layers, **options):
        return estimate_furs(
            tiny, tiny.channels, variables, batches, preprocess=preprocess, draws="auto",
            num_layers=num_layers, base_drop_rate=0.05, **options,
        ).draws  # fmt: skip

    assert draws(0) == 5  # nothing to tell apart
    assert 5 <= draws(1) <= draws(2, max_draws=40) <= 40
    # Equal sites can't be told apart.
    same = np.random.default_rng(0).normal(size=(4, 100))
    assert separation(same, 2) < sure(4, 100)
    apart = separation(same + 10 * np.arange(4)[:, None], 2)
    assert apart > 20
    # The same images matter: what is common to all sites doesn't blur their difference.
    common = 1000 * same[:1]
    assert separation(same + common + 10 * np.arange(4)[:, None], 2) == pytest.approx(apart)


def _skewed(rng, sites, images):
    """Losses of equal sites on the same images: correlated, skewed, of unequal errors."""
    common = rng.exponential(size=images)
    own = rng.exponential(size=(sites, images)) + rng.normal(size=(sites, images))
    own -= 1
    return common + np.geomspace(0.3, 3, sites)[:, None] * own


@pytest.mark.parametrize("sites", [6, 12, 18, 54])
def test_equal_sites_are_rarely_called_different_and_one_that_differs_is(sites):
    rng, images, trials = np.random.default_rng(sites), 100, 600
    needed = sure(sites, images)
    alarms, found = 0, 0
    for _ in range(trials):
        ratios = _skewed(rng, sites, images)
        alarms += spread(ratios) > needed
        ratios[0] += 3 * np.std(ratios[0] - ratios[1]) * 2 / np.sqrt(images)
        found += spread(ratios) > needed
    assert alarms / trials <= 0.07
    assert found / trials > 0.9


def test_the_spread_is_that_of_the_surest_pair_and_nought_of_one_site():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 400))
    # The first is farthest away, but nobody knows; the others differ little, and surely.
    ratios = np.stack([1 + 40 * noise[0], noise[1], noise[1] + 0.1 + 0.1 * noise[2]])
    difference = ratios[2] - ratios[1]
    expected = difference.mean() / difference.std(ddof=1) * 20
    assert spread(ratios) == pytest.approx(expected)
    assert spread(ratios[:1]) == 0
    assert spread(np.stack([noise[0], noise[0]])) < 1e-6  # the same, image by image


def test_auto_ends_where_more_draws_would_not_tell(tiny):
    """Sites that touch: what more draws could show is known from how the passes differ."""
    variables, split = random_variables(tiny, tiny.channels), random_split(100)
    found = measure(
        tiny,
        variables,
        split,
        draws="auto",
        max_draws=1000,
        num_layers=2,
        base_drop_rate=0.01,
        metric="accuracy",  # hardly any image is dropped from right to wrong
    )
    assert 10 <= found.draws < 100
    assert found.separation < sure(len(tiny.channels), 100)
    assert 0 < found.drawn_share <= 1
    said = what_draws_bought(found, 1000)
    assert f"{found.draws} of at most 1000 draws: more would not tell" in said
    assert f"{found.drawn_share:.0%} is the draws'" in said
    assert what_draws_bought(found._replace(separation=9.0), 1000) is None


def test_what_more_draws_could_show_is_what_they_do_show():
    """The images' part of the error stays, the draws' part shrinks."""
    rng, images, passes = np.random.default_rng(0), 400, 200
    of_images = rng.normal(size=(2, images))
    draws = of_images + 2 * rng.normal(size=(passes, 2, images)) + np.array([[0.4], [0.0]])
    found = Sums()
    for ratios in draws[:4]:
        found = found.plus(np.zeros((2, 2, images)), ratios, 5)
    drawn = found.drawn()
    single = drawn[0, 0] + drawn[1, 1] - 2 * drawn[0, 1]
    assert single == pytest.approx(5 * (4 + 4) / images, rel=0.1)
    mean = found.ratios / found.weight
    could = reachable(mean[0] - mean[1], single, 20, 5 * passes)
    shown = separation(draws.mean(axis=0), 1)
    assert 0.9 * shown < could < 1.6 * shown  # with some luck
    assert separation(mean, 1) < shown
