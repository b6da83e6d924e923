"""FURs of small networks on random images."""

import jax
import jax.numpy as jnp

from furs_jax.furs.estimate import estimate_furs
from furs_jax.furs.measure import Reread


def preprocess(images):
    return images.astype(jnp.float32) / 255.0 - 0.5


def measure(net, variables, split, devices=1, batch_size=16, **options):
    return estimate_furs(
        net,
        net.channels,
        variables,
        Reread(split, batch_size),
        preprocess=preprocess,
        devices=jax.devices()[:devices],
        **options,
    )
