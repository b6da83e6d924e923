"""Networks by name, as pure functions of a channel vector."""

import functools
from collections.abc import Callable

import flax.linen as nn

from furs_jax.errors import ConfigError
from furs_jax.networks.families.densenet import densenet
from furs_jax.networks.families.mbconv import efficientnet_b0, mnasnet_a1, mnasnet_cifar
from furs_jax.networks.families.plain import plain
from furs_jax.networks.families.pyramidnet import pyramidnet
from furs_jax.networks.families.resnet import cifar_resnet, imagenet_resnet
from furs_jax.networks.network import Network
from furs_jax.networks.traced import user_module
from furs_jax.options.schema import check_option

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
__all__ = ["NETWORKS", "Network", "get_network"]


def get_network(
    name: str,
    width_multiplier: float = 1.0,
    num_classes: int | None = None,
    padding: str = "max",
    image_shape: tuple[int, int, int] | None = None,
) -> Network:
    """A network by name.

    Args:
      name: one of `NETWORKS`, or your own module as "my_package.my_module:MyNet", see
        `furs_jax.networks.traced`.
      width_multiplier: stem and sites have int(width_multiplier * c) channels; of your own module
        only the sites.
      num_classes: by default 100 (CIFAR's networks) or 1000 (ImageNet's).
      padding: "max" or "local", see `ResNet`; without meaning for networks without shortcuts.
      image_shape: (H, W, C); by default (32, 32, 3) or (224, 224, 3).

    Raises:
      ConfigError: unknown name or padding, a width below one channel, or a module of yours that
        can't be searched.
    """
    check_option("padding", padding)
    check_option("width_multiplier", width_multiplier)
    if ":" in name:
        module = user_module(name, num_classes, padding)
        net = Network.from_module(module, image_shape or _IMAGENET, name, num_classes)
        return net.scaled(width_multiplier)
    if name not in _FAMILIES:
        raise ConfigError(
            f"unknown network {name!r}; known are {', '.join(NETWORKS)}, and your own as "
            "my_package.my_module:MyNet"
        )
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
