"""A network as a pure function of its channel vector."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from furs_jax.errors import ConfigError
from furs_jax.networks.resources import Layer


@dataclasses.dataclass(frozen=True)
class Network:
    """A searchable network: a linen module whose `channels` field is free.

    This class asks the module for its table of layers; `from_module` traces any other module.

    Attributes:
      name: as given to `get_network`.
      template: the module with its initial channels.
      image_shape: (H, W, C) of the images that MACs are counted for.
    """

    name: str
    template: nn.Module
    image_shape: tuple[int, int, int]

    multiple = 1  # widths that the module can be built with are multiples of it
    fans_out = True  # whether the module may be given `furs_jax.gates.FanOut`

    @staticmethod
    def from_module(
        module: nn.Module,
        image_shape: tuple[int, int, int],
        name: str | None = None,
        num_classes: int | None = None,
    ) -> "Network":
        """A network of your own: see `furs_jax.networks.traced.trace_network`."""
        from furs_jax.networks.traced import trace_network

        try:
            hash(module)
        except TypeError as error:
            raise ConfigError(
                f"the module's fields must be hashable, tuples not lists: {error}"
            ) from error
        return trace_network(module, tuple(image_shape), name, num_classes)

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
