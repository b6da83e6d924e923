"""Stages that get and lose blocks, and weights that networks of other depths inherit."""

import functools

import jax
import numpy as np
import pytest

from furs_jax.training.trainer import make_trainer
from furs_jax.widths.block_moves import changed, choose_stages, last_branches
from furs_jax.widths.inherit import (
    added_branches,
    following_widths,
    free_axes,
    inherit,
    least_important_first,
)
from tests.deep_networks import deep, logits
from tests.training.test_step import RECIPE, random_split, random_task


def test_the_best_stage_gets_a_block_and_the_worst_that_has_one_to_give_loses_it():
    apart = np.array([[0, 5, 9], [-5, 0, 4], [-9, -4, 0]])
    assert choose_stages([3, 2, 1], apart, (1, 2, 2), 3) == (0, 2)
    assert choose_stages([3, 2, 1], apart, (1, 2, 1), 3) == (0, 1)  # the first block stays
    assert choose_stages([3, 2, 1], apart, (1, 2, 1), 5) is None  # not surely different
    assert choose_stages([3, 2, 1], apart, (4, 1, 1), 3) is None  # none can lose
    assert choose_stages([1, 2, 3], apart, (2, 2, 2), 8) == (2, 0)  # as of a control
    # The second stage was not measured: what is apart is of the others.
    assert choose_stages([3, None, 1], apart[:2, :2], (2, 2, 2), 4.9) == (0, 2)
    # What a stage has gained it does not lose, and what it has lost it does not get again.
    assert choose_stages([3, 2, 1], apart, (2, 2, 2), 3, gained=[2]) == (0, 1)
    assert choose_stages([3, 2, 1], apart, (2, 2, 2), 3, lost=[0]) == (1, 2)
    assert choose_stages([3, 2, 1], apart, (2, 2, 2), 0, gained=[0, 1, 2]) is None
    assert choose_stages([3, 2, 1], apart, (2, 2, 2), 0, lost=[0, 1, 2]) is None
    assert choose_stages([None, None, 1], apart[:1, :1], (2, 2, 2), 0) is None
    assert choose_stages([None, None, None], [], (1, 1, 1), 0) is None
    assert changed((2, 2, 2), 0, 2) == (3, 2, 1)


def _state(net, channels, seed, begins=False):
    """Of random arrays; BatchNorms as after training, or as they begin."""
    trainer = make_trainer(random_task(net, 1), channels, RECIPE, random_split(48))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        first = {"scale": 1, "bias": 0, "mean": 0, "var": 1}
        if begins and path[-1].key in first:
            return np.full(x.shape, first[path[-1].key], x.dtype)
        drawn = rng.uniform(0.5, 1.5, x.shape) if x.ndim == 1 else rng.normal(size=x.shape)
        return drawn.astype(x.dtype)

    abstract = trainer.abstract()
    params, statistics = (
        jax.tree_util.tree_map_with_path(draw, tree)
        for tree in (abstract.params, abstract.batch_stats)
    )
    momenta = jax.tree.map(
        lambda x: np.asarray(0 if begins else rng.normal(size=x.shape), x.dtype) * np.ones(x.shape),
        abstract.opt_state,
    )
    return abstract.replace(params=params, batch_stats=statistics, opt_state=momenta)


@pytest.fixture(scope="module", params=["cifar", "mbconv"])
def old(request):
    """A network and its state."""
    net = deep(request.param)
    return net, _state(net, net.channels, 0)


def _carried(net, state, new, following=None):
    """What the new network begins with, from the old one's state, and what it would begin with."""
    following = following or new.channels
    widths = following_widths(net, net.channels, new, following)
    importance = [np.arange(c, 0, -1) for c in net.channels]
    order = least_important_first(importance, free_axes(net), net.channels, widths)
    fresh = _state(new, following, 1, begins=True)
    silent = added_branches(net, new)
    return inherit(state, fresh, order, free_axes(net), silent=silent), fresh


def test_a_new_block_is_the_identity_and_can_learn(old):
    net, state = old
    deeper = net.with_depths([n + 1 for n in net.depths])
    found, fresh = _carried(net, state, deeper)
    before = logits(net, state.variables)
    np.testing.assert_allclose(logits(deeper, found.variables), before, rtol=1e-5)
    added = added_branches(net, deeper)
    assert len(added) == len(net.depths)
    for path, x in jax.tree.leaves_with_path(found.params):
        layer, own = path[0].key, fresh.params if path[0].key not in state.params else state.params
        expected = functools.reduce(lambda tree, key: tree[key.key], path, own)
        if layer in added and path[-1].key == "scale":
            expected = np.zeros_like(expected)
        np.testing.assert_array_equal(x, expected)
    for layer in found.params.keys() - state.params.keys():
        momenta = found.opt_state[1][0].trace[layer]
        assert not any(np.any(x) for x in jax.tree.leaves(momenta))


def test_a_block_that_goes_is_dropped(old):
    net, state = old
    less = net.with_depths([n - 1 for n in net.depths])
    found, _ = _carried(net, state, less)
    masked = logits(net, state.variables, dict.fromkeys(last_branches(net).values(), 0))
    np.testing.assert_allclose(logits(less, found.variables), masked, rtol=1e-4, atol=1e-5)
    kept = net.site_names[0]
    momenta = [s.opt_state[1][0].trace[kept]["conv"]["kernel"] for s in (state, found)]
    np.testing.assert_array_equal(*momenta)


def test_widths_and_blocks_change_at_once(old):
    net, state = old
    other = net.with_depths((1, net.depths[1] + 1))
    found, _ = _carried(net, state, other, tuple(c + 2 for c in other.channels))
    name = net.site_names[0]
    kernels = [s.params[name]["conv"]["kernel"] for s in (state, found)]
    assert kernels[1].shape[-1] == net.channels[0] + 2
    np.testing.assert_array_equal(kernels[1][..., 2:], kernels[0])
