"""Small networks of each family whose stages have blocks that come and go."""

import functools

import jax
import numpy as np

from furs_jax.networks.families.mbconv import MBConvNet, Stage
from furs_jax.networks.families.resnet import ResNet
from furs_jax.networks.network import Network

DEEP = ("cifar", "imagenet", "mbconv")


@functools.cache
def deep(name: str) -> Network:
    """Images of 8x8, two stages; the widest of a trunk is the last block of its first stage."""
    if name == "mbconv":
        stages = (Stage(3, 2, 4, 2, 1), Stage(3, 2, 6, 2, 2, True))
        module = MBConvNet(
            (4, 5, 8, 7, 6, 7, 8, 9), 4, 9, (0, 0, 2, 3), stages, num_classes=10, stem_stride=1,
            activation="swish",
        )  # fmt: skip
    else:
        widths = (4, 5, 6, 9, 5, 7, 4, 6, 3, 8)
        module = ResNet(widths, 4, (2, 3), num_classes=10, imagenet=name == "imagenet")
    return Network(f"deep_{name}", module, (8, 8, 1))


def logits(net: Network, variables, gates=None) -> np.ndarray:
    """Of some images; `gates`, by site, are numbers that cover all of a site's channels."""
    images = np.random.default_rng(9).normal(size=(3, *net.image_shape)).astype(np.float32)
    every = np.ones((len(net.channels), 1, 1, 1, 1), np.float32)
    for site, value in (gates or {}).items():
        every[site] = value
    return np.asarray(_compiled(net)(variables, images, list(every)))


@functools.cache
def _compiled(net: Network):
    quickly = {"xla_backend_optimization_level": 0}
    return jax.jit(net.module(net.channels).apply, compiler_options=quickly)
