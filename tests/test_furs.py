"""FURs: against the slow obvious version, closed forms, one device against eight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax import furs as furs_lib
from furs_jax.data import Split, evaluation_batches
from furs_jax.errors import ConfigError
from furs_jax.furs import drop_rates, estimate_furs
from furs_jax.gates import dropout_gates, gate, sample_noise
from furs_jax.networks import Network, get_network
from furs_jax.networks.blocks import PADDINGS
from furs_jax.networks.plain import plain
from furs_jax.networks.pyramidnet import pyramidnet
from furs_jax.networks.resnet import cifar_resnet, imagenet_resnet
from furs_jax.resources import marginal_macs
from furs_jax.step import data_parallel, make_dropout_step, make_fisher_step
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv
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


@pytest.mark.parametrize("fan_out", [True, False])
@pytest.mark.parametrize(("metric", "noise"), [("loss", "bernoulli"), ("accuracy", "gaussian")])
def test_furs_equal_the_site_by_site_ones(tiny, metric, noise, fan_out):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    found = _estimate(
        tiny,
        variables,
        split,
        metric=metric,
        noise=noise,
        base_drop_rate=0.3,
        draws=3,
        seed=7,
        fan_out=fan_out,
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


def _small(build, *arguments, image_shape=(8, 8, 1), **fields):
    return Network("small", build(*arguments, 0.25, num_classes=10, **fields), image_shape)


@pytest.mark.parametrize(
    "net",
    [
        *(_small(cifar_resnet, 14, padding=padding) for padding in PADDINGS),
        *(
            _small(imagenet_resnet, 18, padding=padding, image_shape=(32, 32, 1))
            for padding in PADDINGS
        ),
        *map(tiny_mbconv, PADDINGS),
        _small(pyramidnet, 8),
        _small(plain, 8),
        tiny_densenet(),
    ],
    ids=lambda net: type(net.template).__name__,
)
def test_fan_out_equals_vmapped_passes_in_every_family(net):
    shape = net.image_shape
    widths = tuple(np.random.default_rng(0).integers(3, 9, len(net.channels)).tolist())
    net = dataclasses.replace(net, template=net.module(widths))
    variables = random_variables(net, net.channels)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 10).astype(np.int32)
    split = Split(rng.integers(0, 256, (10, *shape)).astype(np.uint8), labels)
    fan, passes = (
        _estimate(net, variables, split, batch_size=5, draws=2, fan_out=f) for f in (True, False)
    )
    for field, a, b in zip(fan._fields, fan, passes, strict=True):
        scale = np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale, err_msg=field)


def test_one_trace_for_a_network(tiny, monkeypatch):
    traces = []
    make = furs_lib.make_dropout_step

    def counted(apply, *arguments):
        def traced(*inputs):
            traces.append(inputs)
            return apply(*inputs)

        return make(traced, *arguments)

    monkeypatch.setattr(furs_lib, "make_dropout_step", counted)
    variables, split = random_variables(tiny, tiny.channels), random_split(80)
    _estimate(tiny, variables, split)
    assert len(traces) == 1  # for all sites, draws and batches
    _estimate(tiny, variables, split, fan_out=False)
    assert len(traces) == 3  # undropped, and dropped


@pytest.mark.parametrize("labels", ["empirical", "sampled"])
def test_fisher_furs_are_squared_gradients_of_single_images(tiny, labels):
    variables, split = random_variables(tiny, tiny.channels), random_split(21)
    module = tiny.module(tiny.channels)
    found = _estimate(
        tiny, variables, split, method="fisher", fisher_labels=labels, base_drop_rate=0.2, seed=3
    )
    marginal = marginal_macs(tiny.macs, tiny.channels)
    rates = drop_rates(tiny.channels, marginal, 0.2)
    ones = [jnp.ones((1, 1, 1, c)) for c in tiny.channels]
    rise = np.zeros((len(rates), 21))
    for n in range(21):
        image = _preprocess(jnp.asarray(split.images[n : n + 1]))

        def log_likelihood(gates, label, image=image):
            return jax.nn.log_softmax(module.apply(variables, image, gates))[0, label]

        label = split.labels[n]
        if labels == "sampled":
            key = jax.random.fold_in(jax.random.key(3), n)
            label = jax.random.categorical(key, module.apply(variables, image)[0])
        gradients = jax.grad(log_likelihood)(ones, label)
        rise[:, n] = [np.sum(np.square(g)) for g in gradients]
    rise *= (rates / (2 * (1 - rates)))[:, None]
    np.testing.assert_allclose(found.loss_increase, rise.mean(axis=1), rtol=1e-3)
    stderr = rise.std(axis=1, ddof=1) / np.sqrt(21)
    np.testing.assert_allclose(found.loss_increase_stderr, stderr, rtol=1e-3)
    assert np.all(np.isnan(found.accuracy_drop))
    with pytest.raises(ConfigError, match="knows the loss only"):
        _estimate(tiny, variables, split, method="fisher", metric="accuracy")


def test_sampled_fisher_is_the_gauss_newton_second_order_of_a_linear_network():
    """Where logits are linear in the gates, the rise under small noise is exactly that."""
    rng = np.random.default_rng(0)
    weights, rate = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), 0.02
    features = jnp.asarray(rng.normal(size=(500, 1, 1, 6)), jnp.float32)

    def apply(_, images, gates):
        return jnp.mean(gate(images, gates, 0), axis=(1, 2)) @ weights

    def rise(step):
        batch = {
            "image": features[None],
            # From the network's own prediction, so that the expected Hessian is Gauss-Newton's.
            "label": jax.random.categorical(jax.random.key(1), apply(None, features, None))[None],
            "index": jnp.arange(500)[None],
            "weight": jnp.ones((1, 500)),
        }
        inputs = (None, jnp.array([rate]), jax.random.key(0))
        return float(data_parallel(step, jax.devices()[:1])(inputs, batch).rise[0, 0]) / 500

    dropout = rise(make_dropout_step(apply, (6,), 1000, "gaussian"))
    assert rise(make_fisher_step(apply, (6,), "sampled")) == pytest.approx(dropout, rel=0.1)


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
        ({"method": "guess"}, "furs.method='guess' must be one of dropout, fisher"),
        ({"metric": "f1"}, "furs.metric"),
        ({"noise": "pink"}, "furs.noise"),
        ({"base_drop_rate": 0.0}, "furs.base_drop_rate"),
        ({"draws": 0}, "furs.draws"),
    ],
)
def test_bad_options_are_refused(tiny, option, message):
    with pytest.raises(ConfigError, match=message):
        _estimate(tiny, {}, random_split(4), **option)
