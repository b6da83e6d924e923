"""Normalisation and augmentation on the device, in JAX."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from furs_jax.errors import ConfigError


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """uint8 images (N, H, W, C) to float32 of zero mean and unit deviation per channel.

    Raises:
      ConfigError: images of another type, which may be normalised already.
    """
    if images.dtype != jnp.uint8:
        raise ConfigError(f"images to be normalised must be uint8, not {images.dtype}")
    mean, std = (jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1) for x in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def crop_and_flip(keys: jax.Array, images: jax.Array, margin: int, flip: bool) -> jax.Array:
    """Random crops of images padded by `margin` zeros, and random horizontal flips.

    He et al., CVPR 2016, section 4.2 (margin 4 on CIFAR). Pad normalised images, so that zero is
    the mean.

    Args:
      keys: one PRNG key per image, shape (N,).
      images: float32, shape (N, H, W, C).
      margin: pixels of padding on each side; 0 for no crop.
      flip: whether half of the images are mirrored left to right.

    Returns:
      float32, shape (N, H, W, C).
    """
    shape = images.shape[1:]

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        crop_key, flip_key = jax.random.split(key)
        if margin:
            start = jax.random.randint(crop_key, (2,), 0, 2 * margin + 1)
            padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
            image = jax.lax.dynamic_slice(padded, (start[0], start[1], 0), shape)
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        return image

    return jax.vmap(one)(keys, images)
