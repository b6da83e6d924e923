"""A narrower network within a wider one: the last channels of each site, as residual sums align."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from furs_jax.gates import Gates


class Narrowed(NamedTuple):
    """A module without all but the last channels of each site, applied as any module is.

    That is exact, and a pass costs as much as the whole module's.
    """

    module: Any  # linen module
    widths: jax.Array | Sequence[int]  # of the sites; int32, shape (L,), or numbers

    @property
    def channels(self) -> tuple[int, ...]:
        """As built."""
        return self.module.channels

    def apply(self, variables: Any, images: jax.Array, gates: Gates = None, **given: Any) -> Any:
        masks = suffix_masks(self.widths, self.channels)
        if gates is not None:
            masks = [gate * mask for gate, mask in zip(gates, masks, strict=True)]
        return self.module.apply(variables, images, masks, **given)


def suffix_masks(
    widths: jax.Array | Sequence[int], channels: Sequence[int]
) -> tuple[jax.Array, ...]:
    """Gates that leave the last widths[l] channels of each site, float32, shape (1, 1, 1, C_l).

    Args:
      widths: int32, shape (L,), or numbers.
      channels: C_l, as built.
    """
    return tuple(
        (jnp.arange(c) >= c - width).astype(jnp.float32)[None, None, None]
        for c, width in zip(channels, widths, strict=True)
    )


def suffix_noise(noise: jax.Array, widths: jax.Array, channels: Sequence[int]) -> jax.Array:
    """The noise of `furs_jax.gates.sample_noise` that the narrow network's own channels meet.

    Random numbers are those of their places, however many there are: the narrow network's are the
    first of the wide one's.

    Args:
      noise: of the network as built, shape (N, sum(channels)).
      widths: int32, shape (L,).
      channels: as built.

    Returns:
      Of the same shape; of channels that the narrow network has not, any.
    """
    ends = jnp.cumsum(widths)
    places = [jnp.arange(c) + (end - c) for c, end in zip(channels, ends, strict=True)]
    return noise[:, jnp.maximum(jnp.concatenate(places), 0)]
