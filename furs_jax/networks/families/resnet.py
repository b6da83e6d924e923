"""ResNets (He et al., CVPR 2016) from a channel vector: CIFAR's of depth 6n+2, ImageNet's 18, 34.

Sites are both convolutions of every basic block, in order.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from furs_jax.gates import Gates, Places, gate, joined_places, site_places
from furs_jax.networks.blocks import (
    CIFAR,
    IMAGENET,
    Conv,
    ConvBatchNorm,
    Join,
    average_pool,
    downsample,
    residual_sum,
    scaled,
)
from furs_jax.networks.depths import resized
from furs_jax.networks.layers import Layer


class Block(NamedTuple):
    """A basic block's plan."""

    first: Conv
    second: Conv
    shortcut: Conv | None  # None: identity, pooled where the block has a stride
    join: Join


class ResNet(nn.Module):
    """A ResNet of basic blocks whose widths are data.

    Attributes:
      channels: widths of the sites, two per block.
      stem: width of the first convolution (not searched).
      blocks_per_stage: number of basic blocks in each stage; later stages start with stride 2.
      imagenet: 7x7/2 stem with max pooling and projection shortcuts, else a 3x3 stem and pooled
        shortcuts.
      padding: how unequal widths are summed. "max": the narrower side is padded, and the trunk
        keeps the widest so far (reset at a projection). "local": the block's output rules.
      places: of each site's channels, see `furs_jax.gates.Places`; None: the last ones.
      skips: sites whose convolutions have a low-cost layer, see `ConvBatchNorm`.
      dtype: of the computation; parameters and BatchNorm statistics are float32.
      axis_name: mapped axis over which BatchNorm averages its statistics in training.
    """

    channels: tuple[int, ...]
    stem: int
    blocks_per_stage: tuple[int, ...]
    num_classes: int
    imagenet: bool = False
    padding: str = "max"
    places: tuple[tuple[int, ...], ...] | None = None
    skips: tuple[int, ...] = ()
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return self.blocks_per_stage

    @property
    def block_sites(self) -> tuple[int, ...]:
        """Sites of a block, of each stage."""
        return (2,) * len(self.depths)

    def with_depths(self, depths: tuple[int, ...]) -> "ResNet":
        """With other numbers of blocks, see `networks.depths`."""
        channels = resized(self.channels, self.block_sites, self.depths, depths)
        return self.clone(channels=channels, blocks_per_stage=depths)

    def stem_conv(self, image_channels: int) -> Conv:
        kernel, stride = (7, 2) if self.imagenet else (3, 1)
        return Conv("stem", image_channels, self.stem, kernel, stride)

    def blocks(self) -> list[Block]:
        """The plan: the one place that knows what the network consists of."""
        plan, site = [], 0
        (trunk,), places = site_places([self.stem]), site_places(self.channels, self.places)
        for stage, count in enumerate(self.blocks_per_stage):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                name, output = f"stage{stage + 1}_block{index + 1}", places[site + 1]
                plan.append(self._block(name, trunk, output, stride, site))
                trunk, site = plan[-1].join.trunk, site + 2
        return plan

    def _block(self, name: str, trunk: Places, output: Places, stride: int, site: int) -> Block:
        middle, width = self.channels[site], len(output)
        skips = [own in self.skips for own in (site, site + 1)]
        first = Conv(f"{name}_conv1", len(trunk), middle, 3, stride, site, skips=skips[0])
        second = Conv(f"{name}_conv2", middle, width, 3, 1, site + 1, skips=skips[1])
        shortcut = None
        if self.imagenet and stride > 1:
            shortcut = Conv(f"{name}_shortcut", len(trunk), width, 1, stride, site + 1)
            trunk = output
        local = self.padding == "local" or shortcut is not None
        after = output if local else joined_places(trunk, output)
        return Block(first, second, shortcut, Join(site + 1, trunk, output, after, local))

    def layers(self, image_shape: tuple[int, int, int]) -> tuple[Layer, ...]:
        """The table of layers for images of shape (H, W, C)."""
        height, width, image_channels = image_shape
        stem = self.stem_conv(image_channels).layer((height, width))
        size = downsample((stem.height, stem.width), 2 if self.imagenet else 1)
        rows, blocks = [stem], self.blocks()
        for block in blocks:
            convs = (block.first, block.shortcut) if block.shortcut else (block.first,)
            rows += [row for conv in convs for row in conv.rows(size)]
            size = downsample(size, block.first.stride)
            rows += block.second.rows(size)
        rows.append(
            Layer("head", 1, len(blocks[-1].join.trunk), self.num_classes, 1, 1, dense=True)
        )
        return tuple(rows)

    @nn.compact
    def __call__(self, images: jax.Array, gates: Gates = None, train: bool = False) -> jax.Array:
        """Images (N, H, W, C), normalised, to float32 logits (N, num_classes)."""
        x = images.astype(self.dtype)
        x = self.activate_trunk(self._conv(self.stem_conv(x.shape[-1]), x, train))
        if self.imagenet:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in self.blocks():
            x = self._apply_block(block, x, gates, train)
        x = jnp.mean(nn.relu(x), axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, name="head")(x)

    def activate_trunk(self, x: jax.Array) -> jax.Array:
        """What follows the stem and every residual sum."""
        return nn.relu(x)

    def _conv(self, conv: Conv, x: jax.Array, train: bool) -> jax.Array:
        return ConvBatchNorm(conv, self.dtype, self.axis_name, name=conv.name)(x, train)

    def _apply_block(self, block: Block, x: jax.Array, gates: Gates, train: bool) -> jax.Array:
        y = gate(nn.relu(self._conv(block.first, x, train)), gates, block.first.site)
        y = self._conv(block.second, y, train)
        if block.shortcut:
            x = self._conv(block.shortcut, x, train)
        elif block.first.stride > 1:
            x = average_pool(x)
        return self.activate_trunk(residual_sum(x, y, block.join, gates))


def cifar_resnet(depth: int, width_multiplier: float, **fields: Any) -> ResNet:
    """The CIFAR ResNet of depth 6n+2: stem 16, stages of 16, 32 and 64 channels."""
    blocks = (depth - 2) // 6
    return _resnet(16, (16, 32, 64), (blocks,) * 3, width_multiplier, imagenet=False, **fields)


def imagenet_resnet(depth: int, width_multiplier: float, **fields: Any) -> ResNet:
    """ResNet-18 or ResNet-34: stem 64, stages of 64, 128, 256 and 512 channels."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]
    return _resnet(64, (64, 128, 256, 512), blocks, width_multiplier, imagenet=True, **fields)


def _resnet(stem, widths, blocks_per_stage, width_multiplier, **fields) -> ResNet:
    channels = [
        w for w, count in zip(widths, blocks_per_stage, strict=True) for _ in range(2 * count)
    ]
    channels, stem = scaled(channels, width_multiplier), int(width_multiplier * stem)
    return ResNet(channels, stem, blocks_per_stage, **fields)


NETWORKS = {
    **{
        f"resnet{depth}_cifar": (functools.partial(cifar_resnet, depth), CIFAR)
        for depth in (8, 14, 20, 32, 56, 110)
    },
    **{
        f"resnet{depth}": (functools.partial(imagenet_resnet, depth), IMAGENET)
        for depth in (18, 34)
    },
}
