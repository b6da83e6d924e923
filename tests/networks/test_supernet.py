"""Several widths of each site at once: draws, averages, and a draw of one width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from furs_jax.networks.families.plain import Plain
from furs_jax.networks.families.pyramidnet import PyramidNet
from furs_jax.networks.network import Network
from furs_jax.networks.supernet import (
    Draw,
    averaging,
    candidate_widths,
    draw_two,
    merged,
    supernet,
    unmet_sites,
)
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv, tiny_network

WIDE = (12, 10, 14, 11)


def plain():
    return Network("plain", Plain(WIDE, 4, num_classes=10, stages=2), (8, 8, 1))


def pyramid():
    template = PyramidNet(WIDE, 4, (1, 1), num_classes=10)
    return Network("pyramid", template, (8, 8, 1))


NETS = {
    "max": lambda: tiny_network().of(WIDE),
    "local": lambda: tiny_network("local").of(WIDE),
    "imagenet": lambda: tiny_network(imagenet=True).of(WIDE),
    "plain": plain,
    "pyramid": pyramid,
    "mbconv": lambda: tiny_mbconv().of((10, 16, 12, 14, 12)),
    "mbconv_local": lambda: tiny_mbconv("local").of((10, 16, 12, 14, 12)),
}


def test_candidates_are_three_to_ten_tenths_rounded_down():
    found = candidate_widths([10, 16, 1]).tolist()
    assert found[0] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert found[1] == [4, 6, 8, 9, 11, 12, 14, 16]
    assert found[2] == [1] * 8


def _pooled(x, most):
    """PyTorch's adaptive average pooling of the last axis, as its documentation has it."""
    bins = []
    for i in range(most):
        start, stop = int(np.floor(i * len(x) / most)), int(np.ceil((i + 1) * len(x) / most))
        bins.append(np.mean(x[start:stop]))
    return np.array(bins)


@pytest.mark.parametrize(("width", "most", "size"), [(3, 7, 9), (4, 6, 6), (5, 5, 8), (7, 8, 8)])
def test_averaging_is_adaptive_average_pooling_of_the_last_channels(width, most, size):
    x = np.random.default_rng(0).normal(size=size)
    expected = np.concatenate([np.zeros(size - most), _pooled(x[size - width :], most)])
    found = x.astype(np.float32) @ np.asarray(averaging(width, most, size))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("index", [(1, 6), (6, 1), (0, 7), (3, 4)])
def test_each_drawn_width_has_its_own_scale_and_bias(index):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 3, 3, 12)).astype(np.float32)
    scale, bias = rng.normal(size=(2, 8, 12)).astype(np.float32)
    widths, share = candidate_widths([12])[0], np.array([0.3, 0.7], np.float32)
    most, expected = max(widths[list(index)]), 0.0
    for one, weight in zip(index, share, strict=True):
        narrow = (x * scale[one] + bias[one])[..., -widths[one] :]
        pooled = np.apply_along_axis(_pooled, -1, narrow, most)
        expected = expected + weight * pooled
    draw = Draw(jnp.array(index, jnp.int32), jnp.array(share))
    found = merged(jnp.array(x), scale, bias, jnp.array(widths, jnp.int32), draw)
    np.testing.assert_allclose(found[..., -most:], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[..., :-most], 0)


@pytest.mark.parametrize("name", NETS)
def test_a_draw_of_one_width_is_the_network_of_that_width(name):
    """Weights of the last channels, the width's own BatchNorm, batch statistics."""
    net = NETS[name]()
    whole, sites = supernet(net), len(net.channels)
    variables = random_variables(whole, net.channels)
    rng = np.random.default_rng(2)
    # The last site is the narrowest, so that a shortcut that ends there is cut.
    drawn = [*rng.integers(4, 8, sites - 1), 1]
    index = np.stack([drawn, np.zeros(sites, int)], axis=1)
    widths = candidate_widths(net.channels)[np.arange(sites), index[:, 0]]
    narrow = net.of(widths)
    own = _narrowed(net, narrow, {kind: tree["net"] for kind, tree in variables.items()}, index)
    images = rng.normal(size=(6, *net.image_shape)).astype(np.float32)
    share = np.tile(np.array([[1.0, 0.0]], np.float32), (sites, 1))
    draw = Draw(jnp.array(index, jnp.int32), jnp.array(share))
    asked = {"train": True, "mutable": ["batch_stats"]}
    found, _ = whole.module(net.channels).apply(variables, images, draw=draw, **asked)
    expected, _ = narrow.module(widths).apply(own, images, **asked)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def _narrowed(net, narrow, given, index):
    """The last channels of all arrays, and of BatchNorms' tables the drawn row."""
    image = jax.ShapeDtypeStruct((1, *net.image_shape), np.float32)
    shapes = jax.eval_shape(narrow.template.init, jax.random.key(0), image)
    sites = {layer.name: layer.site for layer in net.layers(net.channels)}
    given, found = flatten_dict(given), {}
    for path, like in flatten_dict(shapes).items():
        layer, site = path[1], sites.get(path[1])
        if site is not None and path[-1] in ("scale", "bias"):
            x = given["params", layer, path[-1]][index[site, 0]]
        else:
            x = given[path]
        found[path] = x[tuple(slice(n - m, n) for n, m in zip(x.shape, like.shape, strict=True))]
    return unflatten_dict(found)


def _softmax(x):
    return np.exp(x - x.max()) / np.sum(np.exp(x - x.max()))


def _drawn(logits, tau, count):
    keys = jax.random.split(jax.random.key(0), count)
    draw = jax.jit(jax.vmap(lambda key: draw_two(key, logits[None], tau)))(keys)
    return np.asarray(draw.index)[:, 0], np.asarray(draw.share)[:, 0]


def test_two_different_widths_are_drawn_as_often_as_their_softmax_says():
    logits, count = np.linspace(-1.0, 1.0, 8).astype(np.float32), 40_000
    p = _softmax(logits.astype(float))
    index, share = _drawn(jnp.array(logits), jnp.float32(0.01), count)
    assert np.all(index[:, 0] != index[:, 1])
    np.testing.assert_allclose(np.bincount(index[:, 0], minlength=8) / count, p, atol=0.01)
    pairs = np.zeros((8, 8))
    np.add.at(pairs, (index[:, 0], index[:, 1]), 1 / count)
    without = p[:, None] * p[None] / (1 - p[:, None])
    np.fill_diagonal(without, 0)
    np.testing.assert_allclose(pairs, without, atol=0.01)
    assert np.mean(share[:, 0]) > 0.95


def test_draws_follow_the_noisy_softmax_at_its_temperature_and_so_do_the_shares():
    logits, tau, count = np.linspace(-2.0, 2.0, 8).astype(np.float32), 2.0, 40_000
    index, share = _drawn(jnp.array(logits), jnp.float32(tau), count)
    rng, expected = np.random.default_rng(0), np.zeros(8)
    logp = np.log(_softmax(logits.astype(float)))
    for _ in range(count // 4):
        expected += _softmax((logp + rng.gumbel(size=8)) / tau) / (count // 4)
    np.testing.assert_allclose(np.bincount(index[:, 0], minlength=8) / count, expected, atol=0.01)
    # Of one draw, from the noise that it met.
    key = jax.random.split(jax.random.key(0), count)[5]
    noise = np.asarray(jax.random.gumbel(jax.random.split(key)[0], (1, 8)))[0]
    p = _softmax((logp + noise) / tau)[index[5]]
    np.testing.assert_allclose(share[5], p / p.sum(), rtol=1e-4)


def test_the_shares_have_a_gradient():
    def first(logits):
        return draw_two(jax.random.key(1), logits, jnp.float32(1.0)).share[0, 0]

    logits = jnp.zeros((1, 8))
    drawn = np.asarray(draw_two(jax.random.key(1), logits, jnp.float32(1.0)).index[0])
    gradient = np.asarray(jax.grad(first)(logits))[0]
    assert gradient[drawn[0]] > 0 > gradient[drawn[1]]
    assert np.sum(np.abs(gradient)) == pytest.approx(2 * gradient[drawn[0]], rel=1e-4)


def test_networks_whose_sites_have_no_batch_norm_behind_are_told():
    for build in NETS.values():
        assert unmet_sites(build()) == []
    assert unmet_sites(tiny_densenet()) == list(range(6))


@pytest.mark.parametrize("name", NETS)
def test_the_formula_counts_macs_and_is_differentiable(name):
    net = NETS[name]()
    formula = net.macs_formula()
    rng = np.random.default_rng(3)
    for widths in rng.integers(1, 20, (5, len(net.channels))):
        assert formula(widths) == net.macs(widths)
        smooth = float(formula.smooth(jnp.array(widths, jnp.float32)))
        assert smooth == pytest.approx(net.macs(widths), rel=1e-6)
