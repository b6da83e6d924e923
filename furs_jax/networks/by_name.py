"""Networks by name, as pure functions of a channel vector.

A family is one file in families/, whose NETWORKS is a table of names: (a function of
width_multiplier and the module's fields that gives the module, (H, W, C) of images when none is
given).
"""

import dataclasses
import importlib
import pkgutil
from typing import Any

import flax.linen as nn

from furs_jax.errors import ConfigError
from furs_jax.networks import families
from furs_jax.networks.blocks import CIFAR, IMAGENET
from furs_jax.networks.network import Network
from furs_jax.options.given import PREFIX, Given
from furs_jax.options.schema import check_option
from furs_jax.plugins import imported

_FOUND = {
    name: entry
    for family in pkgutil.iter_modules(families.__path__, f"{families.__name__}.")
    for name, entry in importlib.import_module(family.name).NETWORKS.items()
}
NETWORKS = tuple(_FOUND)
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
        `furs_jax.networks.network`, or of `given_module`.
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
        module = _module_of(name, num_classes, padding)
        net = Network.from_module(module, image_shape or IMAGENET, name, num_classes)
        return net.scaled(width_multiplier)
    if name not in _FOUND:
        raise ConfigError(
            f"unknown network {name!r}; known are {', '.join(NETWORKS)}, and your own as "
            "my_package.my_module:MyNet"
        )
    build, default_shape = _FOUND[name]
    classes = num_classes or (100 if default_shape == CIFAR else 1000)
    template = build(width_multiplier, num_classes=classes)
    if hasattr(template, "padding"):  # others have no residual sums
        template = template.clone(padding=padding)
    if min(template.channels) < 1 or template.stem < 1:
        raise ConfigError(
            f"width_multiplier={width_multiplier:g} leaves a layer of {name} without channels; "
            "give a larger one"
        )
    return Network(name, template, image_shape or default_shape)


def given_module(module: nn.Module) -> Given:
    """A module of the caller's, named by its class and its fields, to be given to `get_network`.

    Raises:
      ConfigError: it is no linen module.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"network={type(module).__name__} must be a name, or a flax.linen module, as MyNet()"
        )
    return Given(_described(module), module)


def _described(value: Any) -> str:
    """A field's value in words that another process has for it, too: no addresses."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_described, value))})"
    if isinstance(value, int | float | str | None):
        return repr(value)
    if isinstance(value, nn.Module):
        set_here = {"parent", "name", "axis_name"}
        names = (f.name for f in dataclasses.fields(value) if f.name not in set_here)
        fields = (f"{name}={_described(getattr(value, name))}" for name in names)
        return f"{type(value).__name__}({', '.join(fields)})"
    return getattr(value, "__name__", type(value).__name__)  # of functions, classes and dtypes


def _module_of(name: str, num_classes: int | None, padding: str) -> nn.Module:
    """The module that "my_package.my_module:MyNet" names: a class, a function or a module.

    Raises:
      ConfigError: there is none.
    """
    if name.startswith(PREFIX) and not isinstance(name, Given):
        raise ConfigError(
            f"network={name!r} was given to furs_jax.search as an object; give it again, as "
            "network=MODULE"
        )
    module = name.value if isinstance(name, Given) else imported(name, "network")
    if not isinstance(module, nn.Module) and callable(module):
        try:
            module = module()
        except TypeError as error:
            raise ConfigError(
                f"network={name!r} can't be built without arguments: {error}; give its fields "
                "defaults, `channels` too"
            ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"network={name!r} is no flax.linen module but a {type(module)}")
    fields = {"num_classes": num_classes, "padding": padding}
    known = {k: v for k, v in fields.items() if v is not None and hasattr(module, k)}
    return module.clone(**known) if known else module
