"""Slimmable networks: against narrow networks that are built apart, of the last channels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from furs_jax.data.dataset import Dataset, Split
from furs_jax.networks.axes import grows_in_front
from furs_jax.networks.families.resnet import ResNet
from furs_jax.networks.network import Network
from furs_jax.objectives import Forward, image_losses
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.training.slimmable import Sandwich, whole_batches, width_losses
from furs_jax.training.trainer import Task
from tests.conftest import random_variables

SMALLEST = (1, 2)


def narrow(net, variables, channels):
    """The network of the last channels: its module and its variables."""
    module = net.module(channels)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *net.image_shape)))

    def last(x, shape):
        return x[tuple(np.s_[n - m :] for n, m in zip(x.shape, shape.shape, strict=True))]

    return module, jax.tree.map(last, variables, shapes)


def logits_of(net, variables, channels, batch):
    module, own = narrow(net, variables, channels)
    gates = [g[..., -c:] for g, c in zip(batch["gates"], channels, strict=True)]
    return module.apply(own, batch["image"], gates, train=True, mutable=["batch_stats"])[0]


def batch_of(net, count=16, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, *net.image_shape)).astype(np.float32)
    gates = tuple(rng.choice([0, 1.25], (count, 1, 1, c)).astype("f4") for c in net.channels)
    return {"image": images, "label": rng.integers(0, 10, count).astype(np.int32), "gates": gates}


def block():
    """A residual block."""
    return Network("block", ResNet((5, 6), 4, (1,), num_classes=10), (6, 6, 1))


def test_random_widths_are_keyed_and_one_share_for_all_sites():
    sandwich = Sandwich(CrossEntropy(), smallest=(4, 10), least=0.1)
    key = jax.random.key_data(jax.random.key(3))
    drawn = np.concatenate([sandwich.random_widths(key, s, (40, 100)) for s in range(200)])
    assert (drawn.shape, drawn.dtype) == ((400, 2), np.int32)
    assert np.all(np.abs(drawn[:, 1] / 2.5 - drawn[:, 0]) <= 1)  # the same share
    assert drawn[:, 1].min() <= 12
    assert drawn[:, 1].max() >= 98
    assert abs(np.mean(drawn[:, 1]) - 55) < 4
    np.testing.assert_array_equal(drawn[:2], sandwich.random_widths(key, 0, (40, 100)))
    other = jax.random.key_data(jax.random.key(4))
    assert np.any(drawn[:2] != np.asarray(sandwich.random_widths(other, 0, (40, 100))))
    by_eight = Sandwich(CrossEntropy(), smallest=(8, 16), unit=8).random_widths(key, 1, (40, 96))
    assert np.all(np.asarray(by_eight) % 8 == 0)
    assert np.min(by_eight) >= 8


def sandwich_of(net, variables, batch, step=5, **fields):
    """Outcome and gradients of a step; the widths that it drew."""
    sandwich = Sandwich(CrossEntropy(0.1), smallest=SMALLEST, **fields)
    extra = sandwich.init(jax.random.key(7), net.template)

    def loss(params):
        stats, images = variables["batch_stats"], jnp.asarray(batch["image"])
        network = Forward(net.template, params, stats, images, {})
        outcome = sandwich.loss(network, extra, batch, jax.random.key(0), jnp.int32(step))
        return outcome.loss, outcome

    (_, outcome), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    drawn = sandwich.random_widths(extra["widths"], jnp.int32(step), net.channels)
    return outcome, grads, [tuple(map(int, widths)) for widths in drawn]


@pytest.mark.parametrize("cuts", [False, True])
def test_gradients_are_the_sum_of_four_networks_built_apart(cuts):
    """Of all widths with the recipe's dropout; without cuts, taught by the largest one."""
    net, in_place = block(), not cuts
    assert grows_in_front(net)
    variables, batch = random_variables(net, net.channels), batch_of(net)
    outcome, grads, drawn = sandwich_of(net, variables, batch, cuts=cuts, in_place=in_place)
    assert all(SMALLEST < widths <= net.channels for widths in drawn)
    assert len(drawn) == 2
    labels = optax.smooth_labels(jax.nn.one_hot(batch["label"], 10), 0.1)

    def slow(params):
        own = {**variables, "params": params}
        wide = logits_of(net, own, net.channels, batch)
        target = jax.nn.softmax(jax.lax.stop_gradient(wide)) if in_place else labels
        losses = [
            jnp.mean(
                optax.softmax_cross_entropy(
                    logits_of(net, own, widths, batch),
                    labels if widths == net.channels else target,
                )
            )
            for widths in (net.channels, SMALLEST, *drawn)
        ]
        return sum(losses), losses

    (total, losses), expected = jax.jit(jax.value_and_grad(slow, has_aux=True))(variables["params"])
    assert float(outcome.loss) == pytest.approx(float(total), rel=1e-5)
    assert float(outcome.metrics["largest"]) == pytest.approx(float(losses[0]), rel=1e-5)
    assert float(outcome.metrics["smallest"]) == pytest.approx(float(losses[1]), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), grads, expected
    )
    _, wide = net.template.apply(
        variables, batch["image"], batch["gates"], train=True, mutable=["batch_stats"]
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        outcome.batch_stats,
        wide["batch_stats"],
    )


def task_of(net, devices, search=96):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (search, *net.image_shape), np.uint8)
    split = Split(images, rng.integers(0, 10, search).astype(np.int32))
    mean, std = (0.5,) * net.image_shape[-1], (0.25,) * net.image_shape[-1]
    data = Dataset("random", split, split, split, 10, mean, std)
    return Task(net, data, tuple(jax.devices()[:devices]), "float32", 32)


def test_losses_of_widths_are_those_of_networks_built_apart():
    """BatchNorm's statistics are the batch's, of all devices."""
    net = block()
    variables = random_variables(net, net.channels)
    vectors = [net.channels, tuple(c // 2 for c in net.channels)]
    task = task_of(net, 1)
    split, slow = task.dataset.search, []
    for channels in vectors:
        losses = []
        for start in range(0, 96, 32):
            images = task.preprocess(split.images[start : start + 32])
            gates = [jnp.ones((1, 1, 1, c)) for c in net.channels]
            logits = logits_of(net, variables, channels, {"image": images, "gates": gates})
            losses.append(image_losses(logits, split.labels[start : start + 32]).mean())
        slow.append(float(np.mean(losses)))
    for devices in (1, 2):
        found = width_losses(task_of(net, devices), net.channels, variables, split)(vectors)
        assert found == pytest.approx(slow, rel=1e-4)


def test_images_fill_whole_batches():
    split = Split(np.zeros((100, 2, 2, 1), np.uint8), np.arange(100, dtype=np.int32))
    assert list(whole_batches(split, 512, 32).labels) == [i * 100 // 96 for i in range(96)]
    assert list(whole_batches(split, 50, 10).labels) == list(range(0, 100, 2))
    assert list(whole_batches(split, 512, 200).labels) == [i // 2 for i in range(200)]
