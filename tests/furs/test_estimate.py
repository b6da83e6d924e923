"""FURs: against the slow obvious version, closed forms, one device against eight."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from furs_jax.costs.macs import Macs
from furs_jax.data import load_dataset
from furs_jax.data.batches import evaluation_batches
from furs_jax.data.dataset import Split
from furs_jax.errors import ConfigError
from furs_jax.furs import estimate as furs_lib
from furs_jax.furs.estimate import estimate_furs
from furs_jax.furs.measure import make_task_estimate, search_batches
from furs_jax.furs.ratios import drop_rates
from furs_jax.furs.steps import draw_noise
from furs_jax.gates import dropout_gates
from furs_jax.networks import get_network
from furs_jax.networks.families.plain import plain
from furs_jax.networks.families.pyramidnet import pyramidnet
from furs_jax.networks.families.resnet import cifar_resnet, imagenet_resnet
from furs_jax.networks.network import Network
from furs_jax.options.parse import parse
from furs_jax.options.schema import PADDINGS
from furs_jax.training.trainer import Task
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv
from tests.furs.measured import measure, preprocess
from tests.training.test_step import random_split


def _site_by_site(net, variables, split, rates, draws, seed, noise, reduced, passes=1):
    """Loss and errors of every image, site and draw: one plain forward pass each."""
    module = net.module(net.channels)
    images, labels = preprocess(jnp.asarray(split.images)), split.labels
    key = jax.random.fold_in(jax.random.key(seed), 0)

    def log_likelihood(gates):
        logits = module.apply(variables, images, gates)
        return jax.nn.log_softmax(logits)[np.arange(len(labels)), labels], logits

    def scores(gates):
        log, logits = log_likelihood(gates)
        return np.stack([-log, np.argmax(logits, axis=1) != labels])

    ones = [jnp.ones((len(labels), 1, 1, c)) for c in net.channels]
    slopes = jax.grad(lambda gates: -log_likelihood(gates)[0].sum())(ones)
    noise_of = jax.jit(draw_noise, static_argnums=(3, 4, 5))
    dropped = np.zeros((draws, len(rates), 2, len(labels)))
    for draw in range(draws):
        strata = draws if reduced else None
        index = jnp.arange(len(labels))
        sample = noise_of(key, index, jnp.int32(draw), net.channels, strata, passes)
        for site, rate in enumerate(rates):
            only = np.zeros(len(rates), np.float32)
            only[site] = rate
            gates = dropout_gates(sample, jnp.asarray(only), net.channels, noise)
            dropped[draw, site] = scores(gates)
            if reduced:
                first = slopes[site] * (gates[site] - 1)
                dropped[draw, site, 0] -= np.asarray(first).sum(axis=(1, 2, 3))
    return dropped.mean(axis=0) - scores(None)


@pytest.mark.parametrize("fan_out", [True, False])
@pytest.mark.parametrize(
    ("metric", "noise", "reduced", "draws", "passes"),
    [
        ("loss", "bernoulli", True, 3, 1),
        ("accuracy", "gaussian", True, 3, 1),
        ("loss", "bernoulli", False, 3, 1),
        ("loss", "bernoulli", True, 7, 2),
    ],
)
def test_furs_equal_the_site_by_site_ones(tiny, metric, noise, reduced, draws, passes, fan_out):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    found = measure(
        tiny,
        variables,
        split,
        metric=metric,
        noise=noise,
        variance_reduction=reduced,
        base_drop_rate=0.3,
        draws=draws,
        seed=7,
        fan_out=fan_out,
    )
    assert found.draws == draws
    marginal = Macs(tiny).marginals(tiny.channels)
    rates = drop_rates(tiny.channels, marginal, 0.3)
    rates32 = rates.astype(np.float32)
    rise = _site_by_site(tiny, variables, split, rates32, draws, 7, noise, reduced, passes)
    stderr = rise.std(axis=2, ddof=1) / np.sqrt(45)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(found.loss_increase, rise[:, 0].mean(axis=1), **close)
    np.testing.assert_allclose(found.accuracy_drop, rise[:, 1].mean(axis=1), **close)
    np.testing.assert_allclose(found.loss_increase_stderr, stderr[:, 0], **close)
    np.testing.assert_allclose(found.accuracy_drop_stderr, stderr[:, 1], **close)
    chosen = {"loss": found.loss_increase, "accuracy": found.accuracy_drop}[metric]
    np.testing.assert_allclose(found.furs, chosen / (rates * tiny.channels * marginal))
    assert np.all(found.loss_increase_stderr > 0)


def test_variance_reduction_keeps_the_mean_and_narrows_the_error(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(300)
    plain, reduced = (
        measure(
            tiny, variables, split, batch_size=100, draws=5, base_drop_rate=0.1,
            variance_reduction=r,
        )
        for r in (False, True)
    )  # fmt: skip
    error = np.hypot(plain.furs_stderr, reduced.furs_stderr)
    assert np.all(np.abs(plain.furs - reduced.furs) < 4 * error)
    assert np.median(reduced.furs_stderr / plain.furs_stderr) < 0.8


def test_many_draws_are_the_mean_of_passes_over_the_same_images(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(200)
    batches = list(evaluation_batches(split, 100))

    def estimate(**options):
        return estimate_furs(
            tiny, tiny.channels, variables, batches, preprocess=preprocess, **options
        )

    five, fifty = estimate(draws=5), estimate(draws=50)
    assert (five.draws, fifty.draws) == (5, 50)
    assert np.all(fifty.furs_stderr < five.furs_stderr)
    assert five.loss == fifty.loss
    error = np.hypot(five.furs_stderr, fifty.furs_stderr)
    assert np.all(np.abs(five.furs - fifty.furs) < 4 * error)


def test_furs_do_not_depend_on_devices_or_batches(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    one = measure(tiny, variables, split, draws=2)
    eight = measure(tiny, variables, split, devices=8, batch_size=8, draws=2)
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
        measure(net, variables, split, batch_size=5, draws=2, fan_out=f) for f in (True, False)
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
    measure(tiny, variables, split)
    assert len(traces) == 2  # all sites, draws and batches; the gradient
    measure(tiny, variables, split, fan_out=False)
    assert len(traces) == 5  # undropped, dropped, the gradient


@pytest.mark.parametrize("labels", ["empirical", "sampled"])
def test_fisher_furs_are_squared_gradients_of_single_images(tiny, labels):
    variables, split = random_variables(tiny, tiny.channels), random_split(21)
    module = tiny.module(tiny.channels)
    found = measure(
        tiny, variables, split, method="fisher", fisher_labels=labels, base_drop_rate=0.2, seed=3
    )
    marginal = Macs(tiny).marginals(tiny.channels)
    rates = drop_rates(tiny.channels, marginal, 0.2)
    ones = [jnp.ones((1, 1, 1, c)) for c in tiny.channels]
    rise = np.zeros((len(rates), 21))
    for n in range(21):
        image = preprocess(jnp.asarray(split.images[n : n + 1]))

        def log_likelihood(gates, label, image=image):
            return jax.nn.log_softmax(module.apply(variables, image, gates))[0, label]

        label = split.labels[n]
        if labels == "sampled":
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 0), n)
            label = jax.random.categorical(key, module.apply(variables, image)[0])
        gradients = jax.grad(log_likelihood)(ones, label)
        rise[:, n] = [np.sum(np.square(g)) for g in gradients]
    rise *= (rates / (2 * (1 - rates)))[:, None]
    np.testing.assert_allclose(found.loss_increase, rise.mean(axis=1), rtol=1e-3)
    stderr = rise.std(axis=1, ddof=1) / np.sqrt(21)
    np.testing.assert_allclose(found.loss_increase_stderr, stderr, rtol=1e-3)
    assert np.all(np.isnan(found.accuracy_drop))
    written = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert written["furs"] == found.furs.tolist()
    for unknown in ("accuracy_drop", "drawn_share"):
        assert written[unknown] is None
    with pytest.raises(ConfigError, match="knows the loss only"):
        measure(tiny, variables, split, method="fisher", metric="accuracy")


def test_drop_rates_remove_equal_macs_and_are_clipped():
    net = get_network("resnet20_cifar")
    marginal = Macs(net).marginals(net.channels)
    rates = drop_rates(net.channels, marginal, 0.05)
    removed = rates * net.channels * marginal
    np.testing.assert_allclose(removed, removed[0])
    assert np.all(drop_rates(net.channels, marginal, 0.5) <= 0.5)
    uneven = drop_rates((1, 100), np.array([1.0, 1.0]), 0.5)
    assert uneven[0] == 0.5
    assert uneven[1] == pytest.approx(0.5 * 50.5 / 100)


def test_the_call_in_python_is_the_run_s_own_measurement():
    data = load_dataset("digits")
    net = get_network("resnet8_cifar", 0.25, 10, image_shape=data.image_shape)
    variables = random_variables(net, net.channels)
    batches = list(evaluation_batches(data.search, 64))
    found = estimate_furs(net, net.channels, variables, batches, mean=data.mean, std=data.std)
    task = Task(net, data, tuple(jax.devices()), "float32", 64)
    options = parse(digits.get_config()).furs
    estimate = make_task_estimate(task, options, net.channels)
    own = estimate(variables, search_batches(task, options), 1, 0)
    for field, a, b in zip(own._fields, own, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9, err_msg=field)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"method": "guess"}, "furs.method='guess' must be one of dropout, fisher"),
        ({"metric": "f1"}, "furs.metric"),
        ({"noise": "pink"}, "furs.noise"),
        ({"base_drop_rate": 0.0}, "furs.base_drop_rate"),
        ({"draws": 0}, "furs.draws"),
        ({"draws": "many"}, "furs.draws='many' must be auto or a whole number"),
        ({"max_draws": 0}, "furs.max_draws"),
        ({"memory_gib": 0.0}, "furs.memory_gib"),
    ],
)
def test_bad_options_are_refused(tiny, option, message):
    with pytest.raises(ConfigError, match=message):
        measure(tiny, {}, random_split(4), **option)
