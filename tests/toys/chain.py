"""A network: three convolutions in a row."""

from typing import Any

import flax.linen as nn

from furs_jax.gates import gate


class Chain(nn.Module):
    channels: tuple[int, ...] = (6, 8, 10)
    num_classes: int = 10
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x, gates=None, train=False):
        for site, width in enumerate(self.channels):
            x = gate(nn.relu(nn.Conv(width, (3, 3), 1 + site % 2)(x)), gates, site)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))
