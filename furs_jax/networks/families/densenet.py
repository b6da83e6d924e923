"""DenseNets (Huang et al., CVPR 2017) for CIFAR from a channel vector, without bottlenecks.

Sites are the layers of the dense blocks, their widths what each adds to the concatenation.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from furs_jax.gates import Gates, gate, match_streams
from furs_jax.networks.blocks import CIFAR, Conv, average_pool, convolution, downsample, scaled
from furs_jax.networks.layers import Layer


class Block(NamedTuple):
    """A dense block's plan."""

    layers: tuple[Conv, ...]
    outputs: int  # width of the concatenation
    transition: Conv | None  # 1x1, then pooling; None in the last block


class DenseNet(nn.Module):
    """A DenseNet whose growths are data.

    Layers are BatchNorm, ReLU, convolution. So a site's channels are normalised and activated by
    each layer that reads them, and there they are gated.

    Attributes:
      channels: widths of the sites, equally many in each block.
      stem: width of the first convolution (not searched).
      transitions: output widths of the transitions (not searched). They are data of their own and
        don't follow `channels`: a channel removed from a block must not remove another one behind.
      dtype: of the computation; parameters and BatchNorm statistics are float32.
      axis_name: mapped axis over which BatchNorm averages its statistics in training.
    """

    channels: tuple[int, ...]
    stem: int
    transitions: tuple[int, ...]
    num_classes: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def blocks(self) -> list[Block]:
        """The plan: the one place that knows what the network consists of."""
        plan, width = [], self.stem
        count = len(self.channels) // (len(self.transitions) + 1)
        for index, output in enumerate((*self.transitions, None)):
            layers = []
            for place, site in enumerate(range(index * count, (index + 1) * count)):
                name = f"block{index + 1}_layer{place + 1}"
                layers.append(Conv(name, width, self.channels[site], site=site))
                width += self.channels[site]
            transition = output and Conv(f"transition{index + 1}", width, output, 1)
            plan.append(Block(tuple(layers), width, transition))
            width = output
        return plan

    def layers(self, image_shape: tuple[int, int, int]) -> tuple[Layer, ...]:
        """The table of layers for images of shape (H, W, C); BatchNorms belong to what follows."""
        size = image_shape[:2]
        rows = [Conv("stem", image_shape[-1], self.stem).layer(size, extra=0)]
        for block in self.blocks():
            convs = (*block.layers, block.transition) if block.transition else block.layers
            rows += [conv.layer(size, extra=2 * conv.inputs) for conv in convs]
            size = downsample(size, 2)
        extra = 2 * block.outputs + self.num_classes
        head = Layer("head", 1, block.outputs, self.num_classes, 1, 1, dense=True, extra=extra)
        return (*rows, head)

    @nn.compact
    def __call__(self, images: jax.Array, gates: Gates = None, train: bool = False) -> jax.Array:
        """Images (N, H, W, C), normalised, to float32 logits (N, num_classes)."""
        x = images.astype(self.dtype)
        x = convolution(Conv("stem", x.shape[-1], self.stem), self.dtype, "stem")(x)
        for block in self.blocks():
            parts, sites = [x], [conv.site for conv in block.layers]
            for conv in block.layers:
                x = self._read(f"{conv.name}_bn", parts, sites, gates, train)
                parts.append(convolution(conv, self.dtype, conv.name)(x))
            name = block.transition.name if block.transition else "head"
            x = self._read(f"{name}_bn", parts, sites, gates, train)
            if block.transition:
                x = average_pool(convolution(block.transition, self.dtype, name)(x))
        x = jnp.mean(x, axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(self.num_classes, name="head")(x)

    def _read(
        self, name: str, parts: list[jax.Array], sites: Sequence[int], gates: Gates, train: bool
    ) -> jax.Array:
        """The block's input and its layers so far: concatenated, normalised, activated, gated."""
        x = jnp.concatenate(match_streams(gates, *parts), axis=-1)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name=name,
        )(x)
        x = nn.relu(x)
        if gates is None:
            return x
        ends = [sum(part.shape[-1] for part in parts[: i + 1]) for i in range(len(parts) - 1)]
        first, *rest = jnp.split(x, ends, axis=-1)
        rest = [gate(part, gates, site) for part, site in zip(rest, sites, strict=False)]
        return jnp.concatenate(match_streams(gates, first, *rest), axis=-1)


def densenet(depth: int, width_multiplier: float, growth: int = 12, **fields: Any) -> DenseNet:
    """The CIFAR DenseNet of depth 3n+4: stem 2k, three blocks, transitions that don't compress."""
    count = (depth - 4) // 3
    stem, step = scaled([2 * growth, growth], width_multiplier)
    transitions = (stem + count * step, stem + 2 * count * step)
    return DenseNet((step,) * (3 * count), stem, transitions, **fields)


NETWORKS = {
    f"densenet{depth}_cifar": (functools.partial(densenet, depth), CIFAR) for depth in (16, 40)
}
