"""Low-cost layers: by hand, on networks of a few channels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.data.dataset import Dataset, Split
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.families.resnet import ResNet
from furs_jax.networks.network import Network
from furs_jax.networks.trace import sizes, trace_module
from furs_jax.objectives import Forward
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.training.skipping import Skippable, SkipPenalty, measure_zeros, skippable
from furs_jax.training.step import AXIS
from furs_jax.training.trainer import Task
from tests.conftest import random_variables

PLAIN = Network("plain", Plain((4, 6), 3, num_classes=10, stages=2, skips=(0, 1)), (6, 6, 1))
BLOCK = ResNet((5, 6, 4, 8), 4, (1, 1), num_classes=10, skips=(0, 1, 2, 3))
NETS = [
    PLAIN,
    Network("cifar", BLOCK, (7, 7, 1)),
    Network("imagenet", BLOCK.clone(imagenet=True), (16, 16, 3)),
]


def test_the_count_by_hand():
    """Of 6x6 images: 36 places at the first site, 9 at the second."""
    found = skippable(PLAIN)
    assert found.names == ("stage1_conv1", "stage2_conv1")
    assert found.macs == (9 * 3 * 4 * 36, 9 * 4 * 6 * 9)
    others = 9 * 1 * 3 * 36 + 6 * 10  # stem and head
    low_cost = 3 * 36 + 4 * 9  # inputs * height * width: one output
    assert found.total == sum(found.macs) + others + low_cost == PLAIN.macs((4, 6))
    assert found.left([0.25, 1.0]) == 0.75 * 9 * 3 * 4 * 36 + others + low_cost
    plain = PLAIN.of(PLAIN.channels, skips=())
    # A kernel of one output, its BatchNorm's scale and bias.
    assert PLAIN.params((4, 6)) - plain.params((4, 6)) == (3 + 2) + (4 + 2)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_the_table_agrees_with_the_trace(net):
    trace = trace_module(net.template, net.image_shape)
    assert net.macs(net.channels) == sum(product.macs for product in trace.products)
    assert net.params(net.channels) == sum(n for _, n in sizes(trace.variables["params"]))
    found = skippable(net)
    assert len(found.names) == len(net.channels)  # no stem, no projection
    assert not any("stem" in name or "shortcut" in name for name in found.names)


def slow_plain(variables, images):
    """The logits of `PLAIN`, layer by layer in numpy, and each low-cost layer's zeros."""
    params, stats, zeros = variables["params"], variables["batch_stats"], []

    def convolved(x, kernel, stride):
        size = kernel.shape[0]
        pad = size // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        rows = range(0, x.shape[1] - size + 1, stride)
        out = [[np.einsum("nhwi,hwio->no", x[:, i : i + size, j : j + size], kernel)
                for j in rows] for i in rows]  # fmt: skip
        return np.moveaxis(np.array(out), 2, 0)

    def normalised(x, scale, mean):
        return (x - mean["mean"]) / np.sqrt(mean["var"] + 1e-5) * scale["scale"] + scale["bias"]

    x = images
    for name, stride in (("stem", 1), ("stage1_conv1", 1), ("stage2_conv1", 2)):
        own, its = params[name], stats[name]
        y = convolved(x, own["conv"]["kernel"], stride)
        if name != "stem":
            low = convolved(x, own["low_cost"]["conv"]["kernel"], stride)
            low = normalised(low, own["low_cost"]["bn"], its["low_cost"]["bn"])
            zeros.append(low <= 0)
            y = y * np.maximum(low, 0)
        x = np.maximum(normalised(y, own["bn"], its["bn"]), 0)
    return x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"], zeros


def variables_with_zeros(net, seed=22):
    """Low-cost layers are zero here and there: about where their convolution is below zero."""

    def centred(path, x):
        low = any(getattr(key, "key", "") == "low_cost" for key in path)
        return x * 0.1 if low and path[-1].key in ("bias", "mean") else x

    return jax.tree_util.tree_map_with_path(centred, random_variables(net, net.channels, seed))


def task_of(net, devices, count=20):
    rng = np.random.default_rng(1)

    def split(seed):
        images = np.random.default_rng(seed).integers(0, 256, (count, *net.image_shape), np.uint8)
        return Split(images, rng.integers(0, 10, count).astype(np.int32))

    data = Dataset("random", split(0), split(1), split(2), 10, (0.5,), (0.25,))
    return Task(net, data, tuple(jax.devices()[:devices]), "float32", 8)


def test_the_network_and_its_zeros_are_those_of_a_slow_one():
    """The low-cost layer is before the convolution's BatchNorm, and counted on all images."""
    variables, task = variables_with_zeros(PLAIN), task_of(PLAIN, 1)
    images = np.asarray(task.preprocess(task.dataset.test.images))
    logits, zeros = slow_plain(variables, images)
    found = PLAIN.template.apply(variables, images)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)
    shares = [float(zero.mean()) for zero in zeros]
    assert all(0.1 < share < 0.9 for share in shares)
    for devices in (1, 2):  # 20 images in batches of 8
        measured = measure_zeros(task_of(PLAIN, devices), variables, task.dataset.test)
        assert measured == pytest.approx(shares, abs=1e-6)


def test_where_the_low_cost_layer_is_zero_the_convolution_does_not_count():
    variables = variables_with_zeros(PLAIN)
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype(np.float32)
    shut = jax.tree_util.tree_map_with_path(
        lambda path, x: x - 100 if "low_cost" in str(path) and path[-1].key == "bias" else x,
        variables,
    )
    other = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 3 if "stage" in str(path) and path[-2].key == "conv"
        and "low_cost" not in str(path) else x,
        shut,
    )  # fmt: skip
    apply = PLAIN.template.apply
    np.testing.assert_array_equal(apply(shut, images), apply(other, images))
    assert np.any(np.asarray(apply(variables, images)) != np.asarray(apply(shut, images)))


def outcome_of(budget, weight, devices=1):
    """Loss, gradients and metrics of a penalised step, of 16 images on some devices."""
    variables, rng = variables_with_zeros(PLAIN), np.random.default_rng(2)
    images = rng.normal(size=(devices, 16 // devices, 6, 6, 1)).astype(np.float32)
    labels = rng.integers(0, 10, (devices, 16 // devices)).astype(np.int32)
    objective = SkipPenalty(CrossEntropy(), skippable(PLAIN), budget, weight)
    module = PLAIN.template.clone(axis_name=AXIS)

    @functools.partial(jax.pmap, axis_name=AXIS)
    def step(images, labels):
        def loss(params):
            network = Forward(module, params, variables["batch_stats"], images, {})
            batch = {"image": images, "label": labels, "gates": None}
            found = objective.loss(network, None, batch, jax.random.key(0), jnp.int32(0))
            return found.loss, found

        (_, found), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return jax.lax.pmean((found.loss, found.metrics, grads), AXIS)

    return jax.tree.map(lambda x: np.asarray(x[0]), step(images, labels))


def test_the_penalty_is_of_the_macs_above_the_budget_and_closes_low_cost_layers():
    total = skippable(PLAIN).total
    plain, metrics, without = outcome_of(0.1 * total, 0.0)
    macs = metrics["theoretical_macs"]
    assert 0.1 * total < macs < total
    loss, _, grads = outcome_of(0.1 * total, 2.0)
    assert loss - plain == pytest.approx(2 * (macs / (0.1 * total) - 1), rel=1e-4)
    for name in skippable(PLAIN).names:  # a step down closes them
        bias = [g[name]["low_cost"]["bn"]["bias"] for g in (grads, without)]
        assert bias[0] > bias[1]
    below, _, same = outcome_of(macs * 1.01, 2.0)
    assert below == pytest.approx(float(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), same, without)


def test_the_penalty_is_the_same_on_two_devices():
    """Where the images of one device alone would be within the budget."""
    macs = outcome_of(1.0, 0.0)[1]["theoretical_macs"]
    one, two = (outcome_of(0.999 * macs, 10.0, devices) for devices in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, two)


def test_what_is_left_takes_a_share_of_each():
    assert Skippable(("a", "b"), (10, 20), 35).left([0.5, 0.25]) == 25
