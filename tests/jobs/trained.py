"""Networks as if trained, to be exported and to predict: random weights, odd names of classes."""

import jax
import numpy as np

from furs_jax.jobs.exported import describe
from furs_jax.jobs.predicting import Preprocessing, TrainedNetwork
from furs_jax.networks import get_network
from furs_jax.networks.network import Network
from furs_jax.training.packed import pack
from tests.conftest import random_variables

CLASSES = ("=1+1", "<img src=x onerror=alert(1)>", "c" * 200, "+x,\n\"y'", *"efghij")


def as_trained(net: Network, channels=None, classes=CLASSES, **fields) -> TrainedNetwork:
    channels = net.channels if channels is None else channels
    shape = net.image_shape
    preprocessing = Preprocessing((0.4,) * shape[-1], (0.25,) * shape[-1], shape, 0.875)
    variables = random_variables(net, channels)
    return TrainedNetwork(net, channels, variables, classes, preprocessing, "float32", **fields)


def small(name: str = "resnet8_cifar", width: float = 0.25, shape=(8, 8, 1), padding="max"):
    return get_network(name, width, 10, padding, shape)


def images(shape, count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)


def packed(found: TrainedNetwork, path):
    pack(path, found.variables, describe(found))
    return path


def applied(found: TrainedNetwork, pixels: np.ndarray) -> np.ndarray:
    """Logits, said once more: normalised by hand."""
    mean, std, *_ = found.preprocessing
    inputs = (pixels / np.float32(255) - np.float32(mean)) / np.float32(std)
    module = found.net.module(found.channels)
    return np.asarray(jax.jit(module.apply)(found.variables, inputs))
