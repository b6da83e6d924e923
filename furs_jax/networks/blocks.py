"""What the network families share: convolutions, their layer table, residual sums."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from furs_jax.gates import Gates, Places, fit_places, gate, match_streams
from furs_jax.networks.depthwise import depthwise_convolution
from furs_jax.networks.layers import Layer

BEFORE_RELU = "before_relu"
CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)  # shapes of images


class Conv(NamedTuple):
    """A convolution without bias, as a network's plan names it."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    site: int | None = None
    groups: int = 1
    skips: bool = False  # whether a low-cost layer says where it is zero

    @property
    def depthwise(self) -> bool:
        return self.groups == self.inputs == self.outputs

    def layer(self, size: tuple[int, int], extra: int | None = None) -> Layer:
        """Its row of the layer table, for an input of `size` (height, width)."""
        height, width = downsample(size, self.stride)
        return Layer(
            self.name,
            self.kernel,
            self.inputs,
            self.outputs,
            height,
            width,
            self.site,
            self.groups,
            extra=extra,
        )

    @property
    def low_cost(self) -> "Conv":
        """The convolution of its low-cost layer."""
        return Conv(f"{self.name}_low_cost", self.inputs, 1, 1, self.stride)

    def rows(self, size: tuple[int, int]) -> list[Layer]:
        """Its row, behind that of its low-cost layer where it has one."""
        return [*([self.low_cost.layer(size)] * self.skips), self.layer(size)]


def downsample(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width after a layer of odd kernel, padded by half of it, with `stride`."""
    return -(-size[0] // stride), -(-size[1] // stride)


def convolution(conv: Conv, dtype: Any, name: str) -> nn.Conv:
    return nn.Conv(
        conv.outputs,
        (conv.kernel, conv.kernel),
        strides=conv.stride,
        # As in PyTorch, and unlike "SAME" at stride 2: the same on both sides.
        padding=(conv.kernel - 1) // 2,
        feature_group_count=conv.groups,
        use_bias=False,
        dtype=dtype,
        conv_general_dilated=depthwise_convolution if conv.depthwise else None,
        # An input reaches the outputs of its own group only.
        kernel_init=nn.initializers.variance_scaling(2.0 * conv.groups, "fan_out", "normal"),
        name=name,
    )


class ConvBatchNorm(nn.Module):
    """Convolution without bias, then BatchNorm with statistics averaged over `axis_name`.

    Where the convolution `skips`, its outputs are multiplied, before their BatchNorm, by its
    low-cost layer, relu(BN(conv1x1)) of one channel (Dong et al., CVPR 2017): where that is zero
    they need not be computed. What is before that ReLU is sown as "intermediates", `BEFORE_RELU`.
    """

    conv: Conv
    dtype: Any = jnp.float32
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x of shape (N, H, W, inputs) to (N, H/stride, W/stride, outputs), dtype `dtype`."""
        return self.normalised(x, train)

    def normalised(self, x: jax.Array, train: bool, affine: bool = True) -> jax.Array:
        """As called; without `affine` BatchNorm has no scale and bias, which the caller gives."""
        factor = self._factor(x, train) if self.conv.skips else None
        x = convolution(self.conv, self.dtype, "conv")(x)
        x = x if factor is None else x * factor
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            use_scale=affine,
            use_bias=affine,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="bn",
        )(x)

    def _factor(self, x: jax.Array, train: bool) -> jax.Array:
        """Of the low-cost layer, shape (N, H/stride, W/stride, 1)."""
        x = ConvBatchNorm(self.conv.low_cost, self.dtype, self.axis_name, name="low_cost")(x, train)
        self.sow("intermediates", BEFORE_RELU, x)
        return nn.relu(x)


class Join(NamedTuple):
    """A residual sum's plan."""

    site: int  # of the block's output
    shortcut: Places
    output: Places  # of the block
    trunk: Places  # of the sum
    gates_sum: bool  # whether removing a channel of the output removes it from the shortcut, too


def residual_sum(shortcut: jax.Array, x: jax.Array, join: Join, gates: Gates) -> jax.Array:
    """shortcut + x with the gate of x's site, which may cover the sum."""
    shortcut = fit_places(shortcut, join.shortcut, join.trunk)
    if join.gates_sum:
        shortcut, x = match_streams(gates, shortcut, x)
        return gate(shortcut + x, gates, join.site)
    x = fit_places(gate(x, gates, join.site), join.output, join.trunk)
    shortcut, x = match_streams(gates, shortcut, x)
    return shortcut + x


def average_pool(x: jax.Array) -> jax.Array:
    """2x2 average pooling; an odd last row or column is averaged alone."""
    return nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)


def scaled(widths: Sequence[int], width_multiplier: float) -> tuple[int, ...]:
    """int(width_multiplier * c) for each width."""
    return tuple(int(width_multiplier * width) for width in widths)
