"""FURs: against the slow obvious version, closed forms, one device against eight."""

import dataclasses
import functools
import json
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from furs_jax.data import Split, evaluation_batches
from furs_jax.data.augment import normalise
from furs_jax.errors import ConfigError
from furs_jax.furs import estimate as furs_lib
from furs_jax.furs.estimate import (
    Estimator,
    _reachable,
    _Sums,
    bytes_per_image,
    drop_rates,
    estimate_furs,
    separation,
    spread,
    sure,
    what_draws_bought,
)
from furs_jax.furs.measure import Reread, make_task_estimate, search_batches
from furs_jax.furs.steps import draw_noise, make_dropout_step, make_fisher_step
from furs_jax.gates import dropout_gates, gate
from furs_jax.networks import Network, get_network
from furs_jax.networks.families.plain import plain
from furs_jax.networks.families.pyramidnet import pyramidnet
from furs_jax.networks.families.resnet import cifar_resnet, imagenet_resnet
from furs_jax.networks.resources import marginal_macs
from furs_jax.options.schema import PADDINGS
from furs_jax.training.step import data_parallel
from furs_jax.training.train import Task
from tests import ROOT
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv
from tests.training.test_step import random_split


def _preprocess(images):
    return images.astype(jnp.float32) / 255.0 - 0.5


def _estimate(net, variables, split, devices=1, batch_size=16, **options):
    return estimate_furs(
        net,
        net.channels,
        variables,
        Reread(split, batch_size),
        preprocess=_preprocess,
        devices=jax.devices()[:devices],
        **options,
    )


def _site_by_site(net, variables, split, rates, draws, seed, noise, reduced, passes=1):
    """Loss and errors of every image, site and draw: one plain forward pass each."""
    module = net.module(net.channels)
    images, labels = _preprocess(jnp.asarray(split.images)), split.labels
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
    found = _estimate(
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
    marginal = marginal_macs(tiny.macs, tiny.channels)
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


def test_stratified_draws_are_uniform_and_drop_each_channel_in_turn():
    draws, index = 5, jnp.arange(4000)
    samples = np.stack(
        [draw_noise(jax.random.key(0), index, jnp.int32(r), (3,), draws) for r in range(draws)]
    )
    for r in range(draws):  # each draw alone: uniform, channels independent
        histogram = np.histogram(samples[r], bins=10, range=(0, 1))[0] / samples[r].size
        np.testing.assert_allclose(histogram, 0.1, atol=0.015)
        assert abs(np.corrcoef(samples[r].T)[0, 1]) < 0.05
    assert np.all((samples < 0.2).sum(axis=0) == 1)  # at a rate of 1 / draws: exactly once


@pytest.mark.parametrize("draws", range(1, 52))
def test_passes_make_every_draw_once_and_few_at_a_time(draws):
    for options in ({"draws": draws}, {"draws": "auto", "max_draws": draws}):
        once, passes = Estimator(**options).passes
        assert 1 <= once <= 5
        made = [range(number, draws, passes) for number in range(passes)]
        assert sorted(number for part in made for number in part) == list(range(draws))
        assert {len(part) for part in made} <= {once, once - 1}
        assert passes == -(-draws // 5)  # no slower than need be


@functools.cache
def _samples(draws, passes):
    """Of all draws, 3,000 images and 12 channels, shape (draws, 3000, 12)."""
    key, index = jax.random.key(0), jnp.arange(3000)
    draw = jax.jit(jax.vmap(lambda number: draw_noise(key, index, number, (12,), draws, passes)))
    return np.asarray(draw(jnp.arange(draws)))


@pytest.mark.parametrize(("draws", "passes"), [(7, 2), (10, 2), (13, 3)])
def test_strata_hold_across_passes(draws, passes):
    samples = _samples(draws, passes)[..., :2]
    for sample in samples:  # each draw alone: uniform, channels independent
        histogram = np.histogram(sample, bins=10, range=(0, 1))[0] / sample.size
        np.testing.assert_allclose(histogram, 0.1, atol=0.03)
        assert abs(np.corrcoef(sample.T)[0, 1]) < 0.1
    gaps = np.diff(np.sort(samples, axis=0), axis=0)
    np.testing.assert_allclose(gaps, 1 / draws, atol=1e-5)  # evenly spaced between them
    for number in range(passes):  # and nearly so in each pass: one of each row of strata
        apart = np.diff(np.sort(samples[number::passes], axis=0), axis=0)
        assert np.min(apart) > 1 / draws - 1e-5
        assert np.max(apart) < 2 * passes / draws + 1e-5
        assert np.mean(apart) == pytest.approx(passes / draws, rel=0.2)
    # What two channels do together is told about as well as by independent draws: in one order of
    # strata for all channels its variance is 1.8 to 3 times as large.
    both = np.prod((samples < 0.3) - 0.3, axis=-1).mean(axis=0)
    assert np.var(both) < 1.35 * (0.3 * 0.7) ** 2 / draws


@pytest.mark.parametrize(("rate", "least"), [(0.1, 0.55), (0.3, 0.8)])
def test_seven_draws_are_no_noisier_than_five_and_ten_are_quieter(rate, least):
    weights = np.random.default_rng(0).normal(size=(12, 4))

    def noise(draws):
        """Variance and mean of what dropping twelve channels does to a squared error."""
        samples = _samples(draws, Estimator(draws=draws).passes[1])
        change = (samples >= rate) / (1 - rate) - 1
        rises = np.sum((change @ weights) ** 2, axis=-1).mean(axis=0)
        return rises.var(), rises.mean()

    five, seven, ten = map(noise, (5, 7, 10))
    assert ten[0] < 0.92 * seven[0] < 0.92 * 0.92 * five[0]
    assert ten[0] < least * five[0]
    exact = rate / (1 - rate) * np.sum(weights**2)
    for _, mean in (five, seven, ten):
        assert mean == pytest.approx(exact, rel=0.03)


def test_variance_reduction_keeps_the_mean_and_narrows_the_error(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(300)
    plain, reduced = (
        _estimate(
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
            tiny, tiny.channels, variables, batches, preprocess=_preprocess, **options
        )

    five, fifty = estimate(draws=5), estimate(draws=50)
    assert (five.draws, fifty.draws) == (5, 50)
    assert np.all(fifty.furs_stderr < five.furs_stderr)
    assert five.loss == fifty.loss
    error = np.hypot(five.furs_stderr, fifty.furs_stderr)
    assert np.all(np.abs(five.furs - fifty.furs) < 4 * error)


def test_auto_draws_until_the_groups_are_separated(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(300)
    batches = list(evaluation_batches(split, 100))

    def draws(num_layers, **options):
        return estimate_furs(
            tiny, tiny.channels, variables, batches, preprocess=_preprocess, draws="auto",
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
    found = _estimate(
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
    found = _Sums()
    for ratios in draws[:4]:
        found = found.plus(np.zeros((2, 2, images)), ratios, 5)
    drawn = found.drawn()
    single = drawn[0, 0] + drawn[1, 1] - 2 * drawn[0, 1]
    assert single == pytest.approx(5 * (4 + 4) / images, rel=0.1)
    mean = found.ratios / found.weight
    reachable = _reachable(mean[0] - mean[1], single, 20, 5 * passes)
    shown = separation(draws.mean(axis=0), 1)
    assert 0.9 * shown < reachable < 1.6 * shown  # with some luck
    assert separation(mean, 1) < shown


def test_memory_limits_the_images_at_once_and_not_the_result(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.uint8)
    module = tiny.module(tiny.channels)

    def apply(variables, images, gates):
        return module.apply(variables, _preprocess(images), gates)

    needed = bytes_per_image(apply, variables, image, tiny.channels, Estimator())
    whole = _estimate(tiny, variables, split, devices=2)
    limit = 3.5 * needed / 2**30
    parts = _estimate(tiny, variables, split, devices=2, memory_gib=limit)
    for field, a, b in zip(whole._fields, whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-9, err_msg=field)
    with pytest.raises(ConfigError, match="that one image takes; give more"):
        _estimate(tiny, variables, split, memory_gib=0.9 * needed / 2**30)


@pytest.mark.parametrize("fan_out", [True, False])
@pytest.mark.parametrize("name", ["resnet14_cifar", "resnet18"])
def test_memory_is_at_least_what_the_compiler_takes(name, fan_out):
    net = get_network(name, 0.5, 10, image_shape=(32, 32, 3))
    module, variables = net.module(net.channels), random_variables(net, net.channels)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    needed = bytes_per_image(module.apply, variables, image, net.channels, Estimator(), fan_out)
    step = make_dropout_step(module.apply, net.channels, 5, "bernoulli", fan_out)
    images = 16
    batch = {
        "image": jax.ShapeDtypeStruct((1, images, 32, 32, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((1, images), jnp.int32),
        "index": jax.ShapeDtypeStruct((1, images), jnp.int32),
    }
    rates = jax.ShapeDtypeStruct((len(net.channels),), jnp.float32)
    lowered = data_parallel(step, jax.devices()[:1]).lower(
        (variables, rates, jax.random.key(0), jnp.int32(0)), batch
    )
    taken = lowered.compile().memory_analysis().temp_size_in_bytes
    assert 0.1 * images * needed < taken < images * needed


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
    assert len(traces) == 2  # all sites, draws and batches; the gradient
    _estimate(tiny, variables, split, fan_out=False)
    assert len(traces) == 5  # undropped, dropped, the gradient


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
        }
        inputs = (None, jnp.array([rate]), jax.random.key(0), jnp.int32(0))
        return float(data_parallel(step, jax.devices()[:1])(inputs, batch).rise[0, 0].mean())

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


def _python_of_readme():
    text = (ROOT / "README.md").read_text()
    block = text.partition("## In Python\n")[2].partition("\nA *site*")[0]
    return textwrap.dedent(block).partition("result = furs_jax.search")[0]


def test_the_readme_s_call_is_the_run_s_own_measurement():
    before, call, after = _python_of_readme().partition("furs = furs_jax.estimate_furs(")
    names = {}
    exec(before, names)
    net, data = names["net"], names["data"]
    names["variables"] = random_variables(net, net.channels)
    exec(call + after, names)
    assert names["channels"] != net.channels
    assert net.macs(names["channels"]) <= net.macs(net.channels)
    task = Task(net, data, tuple(jax.devices()), "float32", 64)
    batches = search_batches(task, digits.get_config().furs)
    estimate = make_task_estimate(task, digits.get_config().furs, net.channels)
    own = estimate(names["variables"], batches, 1, 0)
    for field, a, b in zip(own._fields, own, names["furs"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9, err_msg=field)


def test_mean_and_std_are_the_preprocessing_of_normalised_images(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    mean, std = (0.4,), (0.2,)
    normal = (split.images / np.float32(255) - mean) / std

    def estimate(images, **options):
        batches = evaluation_batches(split._replace(images=images), 16)
        return estimate_furs(tiny, tiny.channels, variables, batches, method="fisher", **options)

    found = estimate(split.images, mean=mean, std=std)
    for other in (
        estimate(normal.astype(np.float32)),
        estimate(split.images, preprocess=lambda images: normalise(images, mean, std)),
    ):
        np.testing.assert_allclose(found.furs, other.furs, rtol=1e-4)


def _batch(**changes):
    images = np.zeros((4, 8, 8, 1), np.float32)
    place = np.arange(4, dtype=np.int32)
    batch = {"image": images, "label": place, "index": place, "weight": np.ones(4, np.float32)}
    batch.update(changes)
    return {key: value for key, value in batch.items() if value is not None}


PIXELS = np.full((4, 8, 8, 1), 200)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"image": PIXELS.astype(np.uint8)}, {}, "are uint8, .* give mean and std"),
        ({"image": PIXELS.astype(np.int32)}, {}, "are int32, .* give mean and std"),
        ({"image": PIXELS.astype(np.float32)}, {}, "from 200 to 200, as pixels do"),
        ({}, {"mean": (0.5,), "std": (0.5,)}, "are for uint8 images, and these are float32"),
        ({}, {"mean": (0.5,)}, "mean and std together"),
        ({}, {"mean": (0.5,), "std": (0.5,), "preprocess": _preprocess}, "in their place"),
        ({}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}, "each of the images' 1 channels, not 3"),
        ({"image": np.zeros((4, 9, 9, 1), np.float32)}, {}, r"image_shape=\(9, 9, 1\)"),
        ({"label": np.eye(4, dtype=np.float32)}, {}, "whole numbers from 0 on"),
        ({"label": np.array([0, 1, 2, -1])}, {}, "whole numbers from 0 on"),
        ({"weight": None}, {}, "must hold weight, too"),
        ({}, {"draws": 7}, "7 draws read the batches 2 times, and these can be read only once"),
        ({}, {"draws": "auto"}, "can be read only once"),
    ],
)
def test_batches_that_are_not_what_the_network_takes_are_refused(tiny, changes, options, message):
    with pytest.raises(ConfigError, match=message):
        estimate_furs(tiny, tiny.channels, {}, iter([_batch(**changes)]), **options)


@pytest.mark.parametrize("change", ["weights", "labels"])
def test_furs_of_a_loss_that_is_not_finite_are_refused(tiny, change):
    variables, split = random_variables(tiny, tiny.channels), random_split(16)
    if change == "weights":
        variables = jax.tree.map(lambda x: x * np.float32(np.nan), variables)
    else:
        split = split._replace(labels=np.where(split.labels == split.labels[0], 10, split.labels))
    with pytest.raises(ConfigError, match="of 16 images is not finite"):
        _estimate(tiny, variables, split, method="fisher")


def test_images_are_normalised_once():
    with pytest.raises(ConfigError, match="must be uint8, not float32"):
        normalise(jnp.zeros((1, 2, 2, 1)), (0.5,), (0.5,))


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
        _estimate(tiny, {}, random_split(4), **option)
