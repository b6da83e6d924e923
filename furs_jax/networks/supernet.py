"""A network of which each site has several widths at once, from one set of weights.

As Transformable Architecture Search has it (Dong and Yang, NeurIPS 2019, section 3.1, and their
code): a forward pass draws two of a site's widths, each with a BatchNorm of its own, and merges
their outputs. A narrow site is the last channels of a wide one, as residual sums align them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.gates import Gates
from furs_jax.networks.blocks import ConvBatchNorm
from furs_jax.networks.layers import Layer
from furs_jax.networks.network import Network

TENTHS = np.arange(3, 11)  # of a site's channels: the widths that it may have
_SPREAD = 0.01  # standard deviation of the logits to begin with


class Draw(NamedTuple):
    """Two widths of each site."""

    index: jax.Array  # of the candidates, int32, shape (L, 2)
    share: jax.Array  # of the merged output, float32, shape (L, 2); sum to one


def candidate_widths(channels: Sequence[int]) -> np.ndarray:
    """Widths of each site, rounded down, at least 1 and ascending; int, shape (L, 8).

    Of a site of few channels some are equal.
    """
    return np.maximum(np.outer(channels, TENTHS) // 10, 1)


def draw_two(key: jax.Array, logits: jax.Array, tau: jax.Array) -> Draw:
    """Draws two candidates of each site without replacement, by Gumbel-softmax (section 3.1).

    The logits, shape (L, 8), with Gumbel noise and divided by the temperature are those of the
    probabilities that are drawn from; the shares are these probabilities, normalised. They have a
    gradient, the choice has none.
    """
    noise_key, choice_key = jax.random.split(key)
    noisy = (jax.nn.log_softmax(logits) + jax.random.gumbel(noise_key, logits.shape)) / tau
    # The two largest with fresh noise are a draw without replacement by softmax(noisy).
    order = jax.lax.stop_gradient(noisy) + jax.random.gumbel(choice_key, logits.shape)
    _, index = jax.lax.top_k(order, 2)
    return Draw(index, jax.nn.softmax(jnp.take_along_axis(noisy, index, axis=1)))


def averaging(width: jax.Array, most: jax.Array, size: int) -> jax.Array:
    """Adaptive average pooling of a site's last `width` channels to its last `most`, as a matrix.

    Output i is the mean of the inputs from floor(i * width / most) to ceil((i + 1) * width / most).

    Returns:
      float32, shape (size, size), rows being inputs; zeros in front.
    """
    inputs = jnp.arange(size)[:, None] - (size - width)
    outputs = jnp.arange(size)[None, :] - (size - most)
    start, stop = outputs * width // most, -(-(outputs + 1) * width // most)
    inside = (outputs >= 0) & (inputs >= start) & (inputs < stop)
    return inside.astype(jnp.float32) / (stop - start).astype(jnp.float32)


def merged(
    x: jax.Array, scale: jax.Array, bias: jax.Array, widths: jax.Array, draw: Draw
) -> jax.Array:
    """Both drawn widths' outputs of BatchNorm, brought to the larger width and added by share.

    All of that is one linear map of x, whose statistics are those of any width.

    Args:
      x: normalised, shape (N, H, W, C).
      scale, bias: of each candidate, shape (8, C), of which the last channels are used.
      widths: of the candidates, shape (8,).
      draw: of this site, both of shape (2,).
    """
    drawn = widths[draw.index]
    kernel, offset = jnp.zeros((x.shape[-1],) * 2), jnp.zeros(x.shape[-1])
    for one in range(2):
        average = draw.share[one] * averaging(drawn[one], jnp.max(drawn), x.shape[-1])
        kernel += scale[draw.index[one]][:, None] * average
        offset += bias[draw.index[one]] @ average
    return x @ kernel.astype(x.dtype) + offset.astype(x.dtype)[None, None, None]


class WidthChoice(nn.Module):
    """Applies `net`, built with its widest sites, with a draw of their widths.

    Its parameters are the logits of the candidates, shape (L, 8), and `net`'s, where BatchNorms of
    sites have a scale and a bias for each candidate. Without a draw each site is at its widest.
    """

    net: nn.Module

    @property
    def channels(self) -> tuple[int, ...]:
        return self.net.channels

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        gates: Gates = None,
        train: bool = False,
        draw: Draw | None = None,
    ) -> jax.Array:
        widths = jnp.asarray(candidate_widths(self.channels), jnp.int32)
        logits = self.param("logits", nn.initializers.normal(_SPREAD), widths.shape)
        if draw is None:
            sites = len(logits)
            last = jnp.tile(jnp.array([[len(TENTHS) - 1, 0]]), (sites, 1))
            draw = Draw(last, jnp.tile(jnp.array([[1.0, 0.0]]), (sites, 1)))
        # A shortcut that ends at a site's width must be no wider than that.
        most = jnp.max(jnp.take_along_axis(widths, draw.index, axis=1), axis=1)
        masks = [
            (jnp.arange(c) >= c - most[site]).astype(jnp.float32)[None, None, None]
            for site, c in enumerate(self.channels)
        ]
        gates = masks if gates is None else [g * m for g, m in zip(gates, masks, strict=True)]

        def many_widths(call: Callable, given: Any, named: Any, context: Any) -> Any:
            if not _makes_site(context):
                return call(*given, **named)
            module, site = context.module, context.module.conv.site
            shape = len(TENTHS), module.conv.outputs
            x = module.normalised(*given, **named, affine=False)
            scale = module.param("scale", nn.initializers.ones, shape)
            bias = module.param("bias", nn.initializers.zeros, shape)
            own = Draw(draw.index[site], draw.share[site])
            return merged(x, scale, bias, widths[site], own)

        with nn.intercept_methods(many_widths):
            return self.net(images, gates, train)


def _makes_site(context: Any) -> bool:
    """Whether the call is that of a site's convolution and BatchNorm."""
    module, called = context.module, context.method_name == "__call__"
    return called and isinstance(module, ConvBatchNorm) and module.conv.site is not None


@dataclasses.dataclass(frozen=True)
class Supernet(Network):
    """A network of which each site has all its candidate widths.

    Attributes:
      net: whose vector is the widest.
    """

    net: Network

    def module(self, channels: Sequence[int], **fields: Any) -> nn.Module:
        return WidthChoice(self.net.module(channels, **fields))

    def layers(self, channels: Sequence[int]) -> tuple[Layer, ...]:
        return self.net.layers(channels)


def supernet(net: Network) -> Supernet:
    return Supernet(net.name, net.template, net.image_shape, net)


def unmet_sites(net: Network) -> list[int]:
    """Sites whose outputs no `ConvBatchNorm` makes, so that they can't have several widths."""
    met = set()

    def note(call: Callable, given: Any, named: Any, context: Any) -> Any:
        if _makes_site(context):
            met.add(context.module.conv.site)
        return call(*given, **named)

    images = jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(net.module(net.channels).init, jax.random.key(0), images)
    return [site for site in range(len(net.channels)) if site not in met]
