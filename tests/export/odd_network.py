"""A network of one's own that does what none of the package's does, to be written step by step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.gates import gate


class Odd(nn.Module):
    channels: tuple[int, ...] = (8, 6)
    num_classes: int = 10
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        first, second = self.channels
        # Strided "SAME": more padding behind than before; a kernel that is not square; dilation.
        x = nn.Conv(first, (3, 5), (2, 2), name="train")(images)
        x = gate(nn.gelu(nn.BatchNorm(not train, use_scale=False)(x)), gates, 0)
        x = nn.Conv(second, (2, 2), kernel_dilation=(2, 1), padding="VALID", name="class")(x)
        x = gate(nn.elu(nn.GroupNorm(num_groups=2)(x)), gates, 1)
        x = x + nn.max_pool(x, (3, 2), (1, 1), "SAME") - nn.avg_pool(x, (3, 3), (1, 1), "SAME")
        x = jnp.concatenate([x, jnp.ones_like(x[..., :2]), jnp.flip(x, 1)[..., ::2]], axis=-1)
        x = x[..., np.array([3, 0, 5, 1, 10, 2, 7])]
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 2), (1, 0)), constant_values=0.5)[:, :3, 1:4]
        x = jnp.where(x > 0.2, jnp.tanh(x), jnp.minimum(x, 0.1) ** 3)
        x = x + x.max(axis=1)[:, None] * x.sum(axis=2, keepdims=True)
        # Attention over places, of the images' channels.
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        query, key = nn.Dense(5)(flat), nn.Dense(5, use_bias=False)(flat)
        weights = nn.softmax(jnp.einsum("npc,nqc->npq", query, key))
        flat = nn.LayerNorm()(jnp.einsum("npq,nqc->npc", weights, flat))
        positions = self.param("positions", nn.initializers.normal(), (1, 9, flat.shape[-1]))
        flat = jnp.swapaxes(flat + positions, 1, 2).reshape(x.shape[0], -1)
        flat = jnp.clip(flat, -1.5, 1.5) * jax.nn.softplus(flat) + jnp.log1p(flat**2)
        best = jnp.stack([flat.max(axis=1), flat.min(axis=1), flat.std(axis=1)], axis=-1)
        return nn.Dense(self.num_classes)(jnp.concatenate([flat, best, jnp.exp(-best)], axis=-1))
