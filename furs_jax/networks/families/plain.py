"""Plain networks (He et al., CVPR 2016) for CIFAR from a channel vector: no shortcuts.

Sites are all convolutions but the first.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from furs_jax.gates import Gates, gate
from furs_jax.networks.blocks import CIFAR, Conv, ConvBatchNorm, scaled
from furs_jax.networks.layers import Layer


class Plain(nn.Module):
    """A chain of 3x3 convolutions whose widths are data.

    Attributes:
      channels: widths of the sites, equally many in each stage.
      stem: width of the first convolution (not searched).
      stages: later ones start with stride 2.
      skips: sites whose convolutions have a low-cost layer, see `ConvBatchNorm`.
      dtype: of the computation; parameters and BatchNorm statistics are float32.
      axis_name: mapped axis over which BatchNorm averages its statistics in training.
    """

    channels: tuple[int, ...]
    stem: int
    num_classes: int
    stages: int = 3
    skips: tuple[int, ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def convs(self, image_channels: int) -> list[Conv]:
        """The plan: the one place that knows what the network consists of."""
        plan = [Conv("stem", image_channels, self.stem)]
        per_stage = len(self.channels) // self.stages
        for site, width in enumerate(self.channels):
            stage, index = divmod(site, per_stage)
            stride = 2 if stage > 0 and index == 0 else 1
            name = f"stage{stage + 1}_conv{index + 1}"
            skips = site in self.skips
            plan.append(Conv(name, plan[-1].outputs, width, 3, stride, site, skips=skips))
        return plan

    def layers(self, image_shape: tuple[int, int, int]) -> tuple[Layer, ...]:
        """The table of layers for images of shape (H, W, C)."""
        size, rows = image_shape[:2], []
        for conv in self.convs(image_shape[-1]):
            rows += conv.rows(size)
            size = (rows[-1].height, rows[-1].width)
        rows.append(Layer("head", 1, self.channels[-1], self.num_classes, 1, 1, dense=True))
        return tuple(rows)

    @nn.compact
    def __call__(self, images: jax.Array, gates: Gates = None, train: bool = False) -> jax.Array:
        """Images (N, H, W, C), normalised, to float32 logits (N, num_classes)."""
        x = images.astype(self.dtype)
        for conv in self.convs(x.shape[-1]):
            x = ConvBatchNorm(conv, self.dtype, self.axis_name, name=conv.name)(x, train)
            x = nn.relu(x)
            if conv.site is not None:
                x = gate(x, gates, conv.site)
        x = jnp.mean(x, axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, name="head")(x)


def plain(depth: int, width_multiplier: float, **fields: Any) -> Plain:
    """The CIFAR plain network of depth 6n+2: stem 16, stages of 16, 32 and 64 channels."""
    per_stage = (depth - 2) // 3
    widths = [width for width in (16, 32, 64) for _ in range(per_stage)]
    stem, *channels = scaled([16, *widths], width_multiplier)
    return Plain(tuple(channels), stem, **fields)


NETWORKS = {f"plain{depth}_cifar": (functools.partial(plain, depth), CIFAR) for depth in (14, 20)}
