"""FURs: against the slow obvious version, closed forms, one device against eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax import furs as furs_lib
from furs_jax.data import evaluation_batches
from furs_jax.errors import ConfigError
from furs_jax.furs import drop_rates, estimate_furs
from furs_jax.gates import dropout_gates, sample_noise
from furs_jax.networks import get_network
from furs_jax.resources import marginal_macs
from tests.conftest import random_variables
from tests.test_step import random_split


def _preprocess(images):
    return images.astype(jnp.float32) / 255.0 - 0.5


def _estimate(net, variables, split, devices=1, batch_size=16, **options):
    return estimate_furs(
        net,
        net.channels,
        variables,
        evaluation_batches(split, batch_size),
        preprocess=_preprocess,
        devices=jax.devices()[:devices],
        **options,
    )


def _site_by_site(net, variables, split, rates, draws, seed, noise):
    """Loss and errors of every image, site and draw: one plain forward pass each."""
    module = net.module(net.channels)
    images, labels = _preprocess(jnp.asarray(split.images)), split.labels
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(len(labels)))

    def scores(gates):
        logits = np.asarray(module.apply(variables, images, gates))
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        wrong = np.argmax(logits, axis=1) != labels
        return np.stack([-log_softmax[np.arange(len(labels)), labels], wrong])

    dropped = np.zeros((draws, len(rates), 2, len(labels)))
    for draw in range(draws):
        sample = sample_noise(
            jax.vmap(jax.random.fold_in, (0, None))(keys, draw), net.channels, noise
        )
        for site, rate in enumerate(rates):
            only = np.zeros(len(rates), np.float32)
            only[site] = rate
            gates = dropout_gates(sample, jnp.asarray(only), net.channels, noise)
            dropped[draw, site] = scores(gates)
    return dropped.mean(axis=0) - scores(None)


@pytest.mark.parametrize("noise", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_vmapped_furs_equal_the_site_by_site_ones(tiny, metric, noise):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    found = _estimate(
        tiny, variables, split, metric=metric, noise=noise, base_drop_rate=0.3, draws=3, seed=7
    )
    marginal = marginal_macs(tiny.macs, tiny.channels)
    rates = drop_rates(tiny.channels, marginal, 0.3)
    rise = _site_by_site(tiny, variables, split, rates.astype(np.float32), 3, 7, noise)
    stderr = rise.std(axis=2, ddof=1) / np.sqrt(45)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(found.loss_increase, rise[:, 0].mean(axis=1), **close)
    np.testing.assert_allclose(found.accuracy_drop, rise[:, 1].mean(axis=1), **close)
    np.testing.assert_allclose(found.loss_increase_stderr, stderr[:, 0], **close)
    np.testing.assert_allclose(found.accuracy_drop_stderr, stderr[:, 1], **close)
    chosen = {"loss": found.loss_increase, "accuracy": found.accuracy_drop}[metric]
    np.testing.assert_allclose(found.furs, chosen / (rates * tiny.channels * marginal))
    assert np.all(found.loss_increase_stderr > 0)


def test_furs_do_not_depend_on_devices_or_batches(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    one = _estimate(tiny, variables, split, draws=2)
    eight = _estimate(tiny, variables, split, devices=8, batch_size=8, draws=2)
    for field, a, b in zip(one._fields, one, eight, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-9, err_msg=field)


def test_one_trace_for_a_network(tiny, monkeypatch):
    traces = []
    make = furs_lib.make_fur_step

    def counted(apply, *arguments):
        def traced(*inputs):
            traces.append(inputs)
            return apply(*inputs)

        return make(traced, *arguments)

    monkeypatch.setattr(furs_lib, "make_fur_step", counted)
    _estimate(tiny, random_variables(tiny, tiny.channels), random_split(80))
    assert len(traces) == 2  # once undropped, once for all sites, draws and batches


def test_drop_rates_remove_equal_macs_and_are_clipped():
    net = get_network("resnet20_cifar")
    marginal = marginal_macs(net.macs, net.channels)
    rates = drop_rates(net.channels, marginal, 0.05)
    removed = rates * net.channels * marginal
    np.testing.assert_allclose(removed, removed[0])
    assert np.all(drop_rates(net.channels, marginal, 0.5) <= 0.5)
    uneven = drop_rates((1, 100), np.array([1.0, 1.0]), 0.5)
    assert uneven[0] == 0.5
    assert uneven[1] == pytest.approx(0.5 * 50.5 / 100)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"method": "guess"}, "furs.method='guess' must be one of dropout"),
        ({"metric": "f1"}, "furs.metric"),
        ({"noise": "pink"}, "furs.noise"),
        ({"base_drop_rate": 0.0}, "furs.base_drop_rate"),
        ({"draws": 0}, "furs.draws"),
    ],
)
def test_bad_options_are_refused(tiny, option, message):
    with pytest.raises(ConfigError, match=message):
        _estimate(tiny, {}, random_split(4), **option)
