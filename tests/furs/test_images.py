"""What FURs are measured on: as the network takes it, and in parts that fit into memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.data.augment import normalise
from furs_jax.data.batches import evaluation_batches
from furs_jax.errors import ConfigError
from furs_jax.furs import estimate
from furs_jax.furs import images as furs_images
from furs_jax.furs.estimate import Estimator, bytes_per_image, estimate_furs
from furs_jax.furs.images import images_within
from furs_jax.furs.steps import make_dropout_step, make_fisher_step
from furs_jax.networks import get_network
from furs_jax.networks.memory import peak_bytes
from furs_jax.training.step import data_parallel
from tests.conftest import random_variables
from tests.furs.measured import measure, preprocess
from tests.training.test_step import random_split


def test_memory_limits_the_images_at_once_and_not_the_result(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.uint8)
    module = tiny.module(tiny.channels)

    def apply(variables, images, gates):
        return module.apply(variables, preprocess(images), gates)

    needed = bytes_per_image(apply, variables, image, tiny.channels, Estimator())
    whole = measure(tiny, variables, split, devices=2)
    limit = 3.5 * needed / 2**30
    parts = measure(tiny, variables, split, devices=2, memory_gib=limit)
    for field, a, b in zip(whole._fields, whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-9, err_msg=field)
    with pytest.raises(ConfigError, match="that one image takes; give more"):
        measure(tiny, variables, split, memory_gib=0.9 * needed / 2**30)


@pytest.mark.parametrize("method", ["dropout", "fisher"])
def test_a_cpu_takes_few_images_at_once_and_finds_the_same(tiny, monkeypatch, method):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    parts = []
    cut = furs_images.parts_within

    def seen(*args):
        for part in cut(*args):
            parts.append(len(part["label"]))
            yield part

    monkeypatch.setattr(estimate, "parts_within", seen)
    whole = measure(tiny, variables, split, method=method)
    assert set(parts) == {16}
    parts.clear()
    monkeypatch.setattr(furs_images, "_CPU_MIB", 0)
    few = measure(tiny, variables, split, method=method)
    assert set(parts) == {1}
    for field, a, b in zip(whole._fields, whole, few, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-9, err_msg=field)


def test_what_is_fast_on_a_cpu_limits_no_accelerator():
    needed = 2**20
    assert images_within(1.0, needed, "gpu") == images_within(1.0, needed, "tpu") == 1024
    assert 1 < images_within(1.0, needed, "cpu") < 100
    assert images_within(2**-8, needed, "cpu") == 4  # memory bounds it, too
    assert images_within(1.0, 2**29, "cpu") == 1


@pytest.mark.parametrize("way", ["fan out", "passes", "fisher"])
@pytest.mark.parametrize(
    "name", ["resnet14_cifar", "resnet18", "densenet16_cifar", "mnasnet_cifar"]
)
def test_memory_is_at_least_what_the_compiler_takes(name, way):
    net = get_network(name, 0.5, 10, image_shape=(32, 32, 3))
    module, variables = net.module(net.channels), random_variables(net, net.channels)
    image, fan_out = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), way == "fan out"
    estimator = Estimator("fisher" if way == "fisher" else "dropout")
    needed = bytes_per_image(module.apply, variables, image, net.channels, estimator, fan_out)
    if way == "fisher":
        step = make_fisher_step(module.apply, net.channels, "empirical")
    else:
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


def test_what_nobody_needs_takes_no_memory():
    x = jax.ShapeDtypeStruct((256,), jnp.float32)

    def fn(x):
        jnp.outer(x, x)
        return x + 1

    assert peak_bytes(fn, x) == peak_bytes(lambda x: x + 1, x) == 1024


def test_mean_and_std_are_the_preprocessing_of_normalised_images(tiny):
    variables, split = random_variables(tiny, tiny.channels), random_split(45)
    mean, std = (0.4,), (0.2,)
    normal = (split.images / np.float32(255) - mean) / std

    def found_on(images, **options):
        batches = evaluation_batches(split._replace(images=images), 16)
        return estimate_furs(tiny, tiny.channels, variables, batches, method="fisher", **options)

    found = found_on(split.images, mean=mean, std=std)
    for other in (
        found_on(normal.astype(np.float32)),
        found_on(split.images, preprocess=lambda images: normalise(images, mean, std)),
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
        ({}, {"mean": (0.5,), "std": (0.5,), "preprocess": preprocess}, "in their place"),
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
        measure(tiny, variables, split, method="fisher")


def test_images_are_normalised_once():
    with pytest.raises(ConfigError, match="must be uint8, not float32"):
        normalise(jnp.zeros((1, 2, 2, 1)), (0.5,), (0.5,))
