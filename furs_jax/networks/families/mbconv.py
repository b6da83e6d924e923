"""MnasNet-A1 (Tan et al., CVPR 2019), EfficientNet-B0 (Tan and Le, ICML 2019): MBConv blocks.

A block expands its input by a 1x1 convolution, filters it depthwise, weighs its channels by
squeeze and excitation (SE; Hu et al., CVPR 2018) and projects it. Sites are the expansion and the
output of every block; the first block expands nothing and has the second only.
"""

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
    downsample,
    residual_sum,
    scaled,
)
from furs_jax.networks.depths import resized
from furs_jax.networks.layers import Layer

SQUEEZE = 0.25  # of the block's input width
ACTIVATIONS = {"relu": nn.relu, "swish": nn.swish}


class Stage(NamedTuple):
    """Blocks alike but for the first, which has the stride and no shortcut."""

    kernel: int
    expansion: int
    outputs: int
    repeats: int
    stride: int
    squeeze: bool = False


class Block(NamedTuple):
    """An MBConv block's plan."""

    expand: Conv | None
    depthwise: Conv
    squeeze: int  # width of SE's bottleneck; 0: no SE
    project: Conv
    shortcut: bool
    join: Join  # without a shortcut, of the output alone


class MBConvNet(nn.Module):
    """A network of MBConv blocks whose widths are data.

    The expansion's gate stands behind the depthwise convolution's activation and before SE, whose
    mean a zeroed channel enters as zero: all of the channel is gone.

    Attributes:
      channels: widths of the sites.
      stem, head: widths of the first and the last 1x1 convolution (not searched).
      squeezes: width of SE in each block, 0 for none. They are those of the initial network and
        don't follow `channels`: a channel removed from a block's input must not remove one here.
      stages: the structure; widths in it are not read.
      stem_stride: 2 for ImageNet.
      activation: "relu" or "swish".
      padding: see `ResNet`; a stage's first block resets the trunk.
      places: see `ResNet`.
      stochastic_depth: rate of dropping a whole block in training, growing linearly with depth
        (Huang et al., ECCV 2016); above 0 it needs an rng of the name "dropout".
      repeats: blocks in each stage where they are not those of `stages`.
      dtype: of the computation; parameters and BatchNorm statistics are float32.
      axis_name: mapped axis over which BatchNorm averages its statistics in training.
    """

    channels: tuple[int, ...]
    stem: int
    head: int
    squeezes: tuple[int, ...]
    stages: tuple[Stage, ...]
    num_classes: int
    stem_stride: int = 2
    activation: str = "relu"
    padding: str = "max"
    places: tuple[tuple[int, ...], ...] | None = None
    stochastic_depth: float = 0.0
    repeats: tuple[int, ...] | None = None
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return self.repeats or tuple(stage.repeats for stage in self.stages)

    @property
    def block_sites(self) -> tuple[int, ...]:
        """Sites of a block, of each stage."""
        return tuple(1 + (stage.expansion > 1) for stage in self.stages)

    def with_depths(self, depths: tuple[int, ...]) -> "MBConvNet":
        """With other numbers of blocks, see `networks.depths`."""
        return self.clone(
            channels=resized(self.channels, self.block_sites, self.depths, depths),
            squeezes=resized(self.squeezes, [1] * len(depths), self.depths, depths),
            repeats=depths,
        )

    def stem_conv(self, image_channels: int) -> Conv:
        return Conv("stem", image_channels, self.stem, 3, self.stem_stride)

    def blocks(self) -> list[Block]:
        """The plan: the one place that knows what the network consists of."""
        plan, (trunk,), site = [], site_places([self.stem]), 0
        for number, (stage, depth) in enumerate(zip(self.stages, self.depths, strict=True)):
            for index in range(depth):
                name = f"stage{number + 1}_block{index + 1}"
                plan.append(self._block(name, stage, index, trunk, site, self.squeezes[len(plan)]))
                trunk, site = plan[-1].join.trunk, plan[-1].project.site + 1
        return plan

    def _block(
        self, name: str, stage: Stage, index: int, trunk: Places, site: int, squeeze: int
    ) -> Block:
        expand, middle, inner = None, len(trunk), None
        if stage.expansion > 1:
            middle, inner = self.channels[site], site
            expand, site = Conv(f"{name}_expand", len(trunk), middle, 1, 1, inner), site + 1
        stride = stage.stride if index == 0 else 1
        depthwise = Conv(f"{name}_depthwise", middle, middle, stage.kernel, stride, inner, middle)
        output, shortcut = site_places(self.channels, self.places)[site], index > 0
        project = Conv(f"{name}_project", middle, len(output), 1, 1, site)
        local = self.padding == "local" or not shortcut
        after = output if local else joined_places(trunk, output)
        join = Join(site, trunk, output, after, local)
        return Block(expand, depthwise, squeeze, project, shortcut, join)

    def layers(self, image_shape: tuple[int, int, int]) -> tuple[Layer, ...]:
        """The table of layers for images of shape (H, W, C)."""
        rows = [self.stem_conv(image_shape[-1]).layer(image_shape[:2])]
        size = (rows[0].height, rows[0].width)
        for block in self.blocks():
            if block.expand:
                rows.append(block.expand.layer(size))
            rows.append(block.depthwise.layer(size))
            size = downsample(size, block.depthwise.stride)
            if block.squeeze:
                name, width = block.depthwise.name, block.depthwise.outputs
                rows.append(Layer(f"{name}_se1", 1, width, block.squeeze, 1, 1, dense=True))
                rows.append(Layer(f"{name}_se2", 1, block.squeeze, width, 1, 1, dense=True))
            rows.append(block.project.layer(size))
        rows.append(Conv("head_conv", len(block.join.trunk), self.head, 1).layer(size))
        rows.append(Layer("head", 1, self.head, self.num_classes, 1, 1, dense=True))
        return tuple(rows)

    @nn.compact
    def __call__(self, images: jax.Array, gates: Gates = None, train: bool = False) -> jax.Array:
        """Images (N, H, W, C), normalised, to float32 logits (N, num_classes)."""
        x = images.astype(self.dtype)
        x = self._activate(self._conv(self.stem_conv(x.shape[-1]), x, train))
        blocks = self.blocks()
        for depth, block in enumerate(blocks):
            rate = self.stochastic_depth * depth / len(blocks) if train else 0.0
            x = self._apply_block(block, x, gates, train, rate)
        x = self._conv(Conv("head_conv", x.shape[-1], self.head, 1), x, train)
        x = jnp.mean(self._activate(x), axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, name="head")(x)

    def _activate(self, x: jax.Array) -> jax.Array:
        return ACTIVATIONS[self.activation](x)

    def _conv(self, conv: Conv, x: jax.Array, train: bool) -> jax.Array:
        bn = {"momentum": 0.99, "epsilon": 1e-3}
        return ConvBatchNorm(conv, self.dtype, self.axis_name, **bn, name=conv.name)(x, train)

    def _apply_block(
        self, block: Block, x: jax.Array, gates: Gates, train: bool, drop_rate: float
    ) -> jax.Array:
        y = self._activate(self._conv(block.expand, x, train)) if block.expand else x
        y = self._activate(self._conv(block.depthwise, y, train))
        if block.expand:
            y = gate(y, gates, block.expand.site)
        if block.squeeze:
            y = self._excite(block, y)
        y = self._conv(block.project, y, train)
        if not block.shortcut:
            return gate(y, gates, block.project.site)
        if drop_rate > 0:
            y = self._drop(y, drop_rate)
        return residual_sum(x, y, block.join, gates)

    def _excite(self, block: Block, x: jax.Array) -> jax.Array:
        def dense(place: int, width: int) -> nn.Dense:
            name = f"{block.depthwise.name}_se{place}"
            return nn.Dense(width, dtype=self.dtype, name=name)

        weights = self._activate(dense(1, block.squeeze)(jnp.mean(x, axis=(1, 2))))
        weights = nn.sigmoid(dense(2, x.shape[-1])(weights))
        return x * weights[:, None, None, :]

    def _drop(self, x: jax.Array, rate: float) -> jax.Array:
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (x.shape[0], 1, 1, 1))
        return x * kept.astype(x.dtype) / (1 - rate)


_MNASNET = (
    Stage(3, 1, 16, 1, 1),
    Stage(3, 6, 24, 2, 2),
    Stage(5, 3, 40, 3, 2, True),
    Stage(3, 6, 80, 4, 2),
    Stage(3, 6, 112, 2, 1, True),
    Stage(5, 6, 160, 3, 2, True),
    Stage(3, 6, 320, 1, 1),
)
_EFFICIENTNET = (
    Stage(3, 1, 16, 1, 1, True),
    Stage(3, 6, 24, 2, 2, True),
    Stage(5, 6, 40, 2, 2, True),
    Stage(3, 6, 80, 3, 2, True),
    Stage(5, 6, 112, 3, 1, True),
    Stage(5, 6, 192, 4, 2, True),
    Stage(3, 6, 320, 1, 1, True),
)
# MnasNet's kinds of blocks at a size for 32x32 images (ours).
_MNASNET_CIFAR = (
    Stage(3, 1, 16, 1, 1),
    Stage(3, 6, 24, 2, 1),
    Stage(5, 3, 40, 2, 2, True),
    Stage(3, 6, 80, 2, 2, True),
)


def mnasnet_a1(width_multiplier: float, **fields: Any) -> MBConvNet:
    """MnasNet-A1: stem 32, head 1280."""
    return _mbconv_net(_MNASNET, 32, 1280, width_multiplier, **fields)


def mnasnet_cifar(width_multiplier: float, **fields: Any) -> MBConvNet:
    """A MnasNet of seven blocks for small images: stem 32, stride 1; head 320."""
    return _mbconv_net(_MNASNET_CIFAR, 32, 320, width_multiplier, stem_stride=1, **fields)


def efficientnet_b0(width_multiplier: float, **fields: Any) -> MBConvNet:
    """EfficientNet-B0: stem 32, head 1280, swish."""
    return _mbconv_net(_EFFICIENTNET, 32, 1280, width_multiplier, activation="swish", **fields)


def _mbconv_net(
    stages: tuple[Stage, ...], stem: int, head: int, width_multiplier: float, **fields: Any
) -> MBConvNet:
    channels, squeezes, inputs = [], [], stem
    for stage in stages:
        for _ in range(stage.repeats):
            if stage.expansion > 1:
                channels.append(stage.expansion * inputs)
            channels.append(stage.outputs)
            squeezes.append(int(SQUEEZE * inputs) if stage.squeeze else 0)
            inputs = stage.outputs
    # A narrow network keeps its SEs.
    squeezes = tuple(squeeze and max(1, int(width_multiplier * squeeze)) for squeeze in squeezes)
    stem, head, *channels = scaled([stem, head, *channels], width_multiplier)
    return MBConvNet(tuple(channels), stem, head, squeezes, stages, **fields)


NETWORKS = {
    "mnasnet_cifar": (mnasnet_cifar, CIFAR),
    "mnasnet_a1": (mnasnet_a1, IMAGENET),
    "efficientnet_b0": (efficientnet_b0, IMAGENET),
}
