"""A linen module whose widths are data: what can be built, traced and tried out."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class Searchable:
    """A linen module with a free field `channels`, and the images that it is for.

    Attributes:
      name: as given to `get_network`.
      template: the module with its initial channels.
      image_shape: (H, W, C) of the images that MACs are counted for.
    """

    name: str
    template: nn.Module
    image_shape: tuple[int, int, int]

    multiple = 1  # widths that the module can be built with are multiples of it

    @property
    def channels(self) -> tuple[int, ...]:
        """The initial channel vector, one width per site."""
        return self.template.channels

    def of(self, channels: Sequence[int], **fields: Any) -> Self:
        """This network with other initial channels, and fields of its module."""
        return dataclasses.replace(self, template=self.module(channels, **fields))

    def module(self, channels: Sequence[int], **fields: Any) -> nn.Module:
        """The linen module of `channels`: apply(variables, images, gates=None, train=False)."""
        return self.template.clone(channels=tuple(int(c) for c in channels), **fields)
