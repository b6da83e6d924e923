"""Networks by name, as pure functions of a channel vector."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from furs_jax.errors import ConfigError
from furs_jax.networks.blocks import PADDINGS
from furs_jax.networks.densenet import densenet
from furs_jax.networks.mbconv import efficientnet_b0, mnasnet_a1, mnasnet_cifar
from furs_jax.networks.plain import plain
from furs_jax.networks.pyramidnet import pyramidnet
from furs_jax.networks.resnet import cifar_resnet, imagenet_resnet
from furs_jax.resources import Layer

_CIFAR, _IMAGENET = (32, 32, 3), (224, 224, 3)

# name -> (function of width_multiplier and module fields, image shape when none is given)
_FAMILIES: dict[str, tuple[Callable[..., nn.Module], tuple[int, int, int]]] = {
    **{
        f"resnet{depth}_cifar": (functools.partial(cifar_resnet, depth), _CIFAR)
        for depth in (8, 14, 20, 32, 56, 110)
    },
    **{
        f"resnet{depth}": (functools.partial(imagenet_resnet, depth), _IMAGENET)
        for depth in (18, 34)
    },
    **{f"plain{depth}_cifar": (functools.partial(plain, depth), _CIFAR) for depth in (14, 20)},
    **{
        f"densenet{depth}_cifar": (functools.partial(densenet, depth), _CIFAR) for depth in (16, 40)
    },
    **{
        f"pyramidnet{depth}_cifar": (functools.partial(pyramidnet, depth), _CIFAR)
        for depth in (14, 20)
    },
    "mnasnet_cifar": (mnasnet_cifar, _CIFAR),
    "mnasnet_a1": (mnasnet_a1, _IMAGENET),
    "efficientnet_b0": (efficientnet_b0, _IMAGENET),
}
NETWORKS = tuple(_FAMILIES)


@dataclasses.dataclass(frozen=True)
class Network:
    """A searchable network: a linen module whose `channels` field is free.

    Attributes:
      name: as given to `get_network`.
      template: the module with its initial channels.
      image_shape: (H, W, C) of the images that MACs are counted for.
    """

    name: str
    template: nn.Module
    image_shape: tuple[int, int, int]

    @property
    def channels(self) -> tuple[int, ...]:
        """The initial channel vector, one width per site."""
        return self.template.channels

    def module(self, channels: Sequence[int], **fields: Any) -> nn.Module:
        """The linen module of `channels`: apply(variables, images, gates=None, train=False)."""
        return self.template.clone(channels=tuple(int(c) for c in channels), **fields)

    def layers(self, channels: Sequence[int]) -> tuple[Layer, ...]:
        """The table of layers, in order of computation."""
        return self.module(channels).layers(self.image_shape)

    def macs(self, channels: Sequence[int]) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers(channels))

    def params(self, channels: Sequence[int]) -> int:
        """Number of trained values."""
        return sum(layer.params for layer in self.layers(channels))

    @property
    def site_names(self) -> tuple[str, ...]:
        """The name of each site's layer."""
        # Later rows win: a projection shortcut comes before the convolution whose site it shares.
        names = {layer.site: layer.name for layer in self.layers(self.channels)}
        return tuple(names[site] for site in range(len(self.channels)))


def get_network(
    name: str,
    width_multiplier: float = 1.0,
    num_classes: int | None = None,
    padding: str = "max",
    image_shape: tuple[int, int, int] | None = None,
) -> Network:
    """A network by name.

    Args:
      name: one of `NETWORKS`.
      width_multiplier: stem and sites have int(width_multiplier * c) channels.
      num_classes: by default 100 (CIFAR's networks) or 1000 (ImageNet's).
      padding: "max" or "local", see `ResNet`; without meaning for networks without shortcuts.
      image_shape: (H, W, C); by default (32, 32, 3) or (224, 224, 3).

    Raises:
      ConfigError: unknown name or padding, or a width below one channel.
    """
    if name not in _FAMILIES:
        raise ConfigError(f"unknown network {name!r}; known are {', '.join(NETWORKS)}")
    if padding not in PADDINGS:
        raise ConfigError(f"unknown padding {padding!r}; known are {', '.join(PADDINGS)}")
    build, default_shape = _FAMILIES[name]
    classes = num_classes or (100 if default_shape == _CIFAR else 1000)
    template = build(width_multiplier, num_classes=classes)
    if hasattr(template, "padding"):  # others have no residual sums
        template = template.clone(padding=padding)
    if min(template.channels) < 1 or template.stem < 1:
        raise ConfigError(
            f"width_multiplier={width_multiplier:g} leaves a layer of {name} without channels; "
            "give a larger one"
        )
    return Network(name, template, image_shape or default_shape)
