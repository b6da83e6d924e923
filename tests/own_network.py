"""A network of one's own, that the package doesn't know: two branches, concatenated, and groups."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from furs_jax.gates import Gates, gate, match_streams


class Fork(nn.Module):
    channels: tuple[int, ...] = (6, 4, 8, 12)
    num_classes: int = 10
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, gates: Gates = None, train: bool = False) -> jax.Array:
        def layer(x, site, kernel=3, groups=1):
            x = nn.Conv(
                self.channels[site],
                (kernel, kernel),
                feature_group_count=groups,
                use_bias=False,
                dtype=self.dtype,
            )(x)
            x = nn.BatchNorm(not train, dtype=self.dtype, axis_name=self.axis_name)(x)
            return gate(nn.relu(x), gates, site)

        x = nn.max_pool(layer(images, 0), (2, 2), (2, 2))
        branches = match_streams(gates, layer(x, 1, kernel=1), layer(x, 2))
        x = layer(jnp.concatenate(branches, axis=-1), 3, groups=2)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)).astype(jnp.float32))
