"""PyramidNet (Han et al., CVPR 2017) for CIFAR, of basic blocks, from a channel vector.

Sites are both convolutions of every block; each adds `WIDENING` channels to the one before. The
source of the published 40.4 MMACs names no widths. Of the additive rules tried, these give 40.44 M
in all; 24 channels over the blocks, rounded, give 40.34 M.
"""

import functools
from typing import Any

import jax

from furs_jax.networks.blocks import CIFAR, scaled
from furs_jax.networks.families.resnet import ResNet

STEM = 16
WIDENING = 1.5  # channels for each convolution


class PyramidNet(ResNet):
    """A ResNet without ReLU on the trunk, as in Han et al., section 4.2.

    Unlike theirs it has no BatchNorm on the trunk: that would turn a channel whose gate is zero
    into a constant, and a gate of zero must be a removed channel.
    """

    def activate_trunk(self, x: jax.Array) -> jax.Array:
        return x


def pyramidnet(depth: int, width_multiplier: float, **fields: Any) -> PyramidNet:
    """The CIFAR PyramidNet of depth 6n+2: stem 16, then 17, 19, 20, 22 and so on."""
    blocks = (depth - 2) // 6
    # Rounded down, as in Han et al., equation 2.
    widths = [int(STEM + WIDENING * (site + 1)) for site in range(6 * blocks)]
    stem, *channels = scaled([STEM, *widths], width_multiplier)
    return PyramidNet(tuple(channels), stem, (blocks,) * 3, imagenet=False, **fields)


NETWORKS = {
    f"pyramidnet{depth}_cifar": (functools.partial(pyramidnet, depth), CIFAR) for depth in (14, 20)
}
