"""Eight fake devices, and strict promotion of dtypes and ranks, for every test."""

import os
from collections.abc import Iterator

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest
from hypothesis import settings

from furs_jax.machine.programs import release_programs
from furs_jax.networks.families.densenet import densenet
from furs_jax.networks.families.mbconv import MBConvNet, Stage
from furs_jax.networks.families.resnet import ResNet
from furs_jax.networks.network import Network

# By hand, other examples every time; where a commit is judged, the same for all.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
jax.config.update("jax_num_cpu_devices", 8)
jax.devices()  # start with them, before a run asks for its own number
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def _release_programs() -> Iterator[None]:
    """No module uses what another one compiled, and together they are gigabytes."""
    yield
    release_programs()


def tiny_network(padding: str = "max", imagenet: bool = False) -> Network:
    """Two stages of one block, 8x8 images: small enough to compile in a second."""
    template = ResNet((4, 5, 6, 8), 4, (1, 1), num_classes=10, imagenet=imagenet, padding=padding)
    return Network("tiny", template, (8, 8, 1))


def tiny_mbconv(padding: str = "max") -> Network:
    """Three blocks, of which two squeeze and one has a shortcut."""
    stages = (Stage(3, 1, 4, 1, 1), Stage(5, 2, 6, 2, 2, True))
    template = MBConvNet(
        (4, 8, 6, 7, 5), 4, 9, (0, 1, 2), stages, num_classes=10, stem_stride=1, padding=padding
    )
    return Network("tiny_mbconv", template, (8, 8, 1))


def tiny_densenet() -> Network:
    """Two layers in each of three blocks."""
    return Network("tiny_densenet", densenet(10, 0.25, num_classes=10), (8, 8, 1))


def random_variables(net: Network, channels, seed: int = 0):
    """Variables as after training: no BatchNorm scale, bias or statistic keeps its first value."""
    image = jax.ShapeDtypeStruct((1, *net.image_shape), np.float32)
    shapes = jax.eval_shape(net.module(channels).init, jax.random.key(0), image)
    rng = np.random.default_rng(seed)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if x.ndim == 1:  # positive, as variances must be
            return (0.5 + rng.random(x.shape)).astype(np.float32)
        fan_in = np.prod(x.shape[:-1])
        return rng.normal(0, np.sqrt(2 / fan_in), x.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


@pytest.fixture
def tiny() -> Network:
    return tiny_network()
