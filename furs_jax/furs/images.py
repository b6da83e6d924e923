"""What FURs are measured on: batches as the network takes them, cut to fit into memory."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.data.augment import normalise
from furs_jax.errors import ConfigError
from furs_jax.networks.network import Network
from furs_jax.objectives import Batch

# Images without a value below 0 and with some above this are pixels, up to 255.
_BRIGHTEST = 16.0
# MiB of a part's activations on a CPU device, as estimated. Buffers above 32 MiB are new pages from
# the system every time (malloc's threshold), and outside of caches. FURs of 64 images at once over
# those of so many, one core: ResNet-20, 32x32, by dropout 1.72, Fisher 1.40; MnasNet at 0.4, 28x28,
# 2.01 and 2.03; ResNet-14 of 8 to 32 channels, 14x14, 1.30 and 1.0; the same at 8x8 1.0.
_CPU_MIB = 40


def preprocessing(
    preprocess: Callable | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    image_shape: tuple[int, int, int],
) -> Callable[[jax.Array], jax.Array]:
    if (mean is None) != (std is None) or (preprocess and mean is not None):
        raise ConfigError("give mean and std together, or preprocess in their place")
    if mean is None:
        return preprocess or (lambda images: images)
    if not len(mean) == len(std) == image_shape[-1]:
        raise ConfigError(
            f"mean and std must have a value for each of the images' {image_shape[-1]} channels, "
            f"not {len(mean)} and {len(std)}"
        )
    return lambda images: normalise(images, mean, std)


def check_batch(net: Network, preprocessed: bool, normalised: bool, batch: Batch) -> Batch:
    """The batch, if its images and labels can be what the network takes."""
    missing = {"image", "label", "index", "weight"} - set(batch)
    if missing:
        raise ConfigError(
            f"batches must hold {', '.join(sorted(missing))}, too: see "
            "furs_jax.data.evaluation_batches"
        )
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    if images.shape[1:] != net.image_shape:
        raise ConfigError(
            f"the batches' images have the shape {images.shape[1:]}, those of {net.name} "
            f"{net.image_shape}; get the network with image_shape={images.shape[1:]}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or np.any(labels < 0):
        raise ConfigError("the batches' labels must be whole numbers from 0 on, one for each image")
    if normalised and images.dtype != np.uint8:
        raise ConfigError(
            f"mean and std are for uint8 images, and these are {images.dtype}; leave mean and std "
            "out where images are normalised already"
        )
    if preprocessed or normalised:
        return batch
    if images.dtype.kind != "f" and images.dtype != jnp.bfloat16:
        raise ConfigError(
            f"the batches' images are {images.dtype}, and the network takes normalised ones: give "
            "mean and std of its data set (as of furs_jax.data.load_dataset), or preprocess"
        )
    if np.min(images) >= 0 and np.max(images) > _BRIGHTEST:
        raise ConfigError(
            f"the batches' images go from {np.min(images):g} to {np.max(images):g}, as pixels do "
            "that are not normalised: give uint8 images with mean and std of their data set, or as "
            "preprocess what the network was trained with"
        )
    return batch


def images_within(memory_gib: float, needed: int, platform: str) -> int:
    """Images at once on a device: as many as fit into memory, on a CPU as are fastest.

    Args:
      memory_gib: GiB for their activations.
      needed: bytes of one image's.
      platform: of the device.

    Raises:
      ConfigError: there is no place for one.
    """
    fit = int(memory_gib * 2**30 / needed)
    if fit < 1:
        raise ConfigError(
            f"furs.memory_gib={memory_gib:g} is less than the {needed / 2**30:.3g} GiB that one "
            "image takes; give more, or measure with fewer draws or furs.method=fisher"
        )
    return max(1, min(fit, _CPU_MIB * 2**20 // needed)) if platform == "cpu" else fit


def parts_within(
    batches: Iterable[Batch], at_once: Callable[[Batch], int], devices: int
) -> Iterator[Batch]:
    """The batches, cut evenly so that each part fits into memory; all parts have one shape."""
    for batch in batches:
        count = len(batch["label"])
        most = at_once(batch)
        size = devices * math.ceil(count / math.ceil(count / most) / devices)
        for start in range(0, count, size):
            place = np.arange(start, start + size)
            part = {key: value[np.minimum(place, count - 1)] for key, value in batch.items()}
            yield part | {"weight": part["weight"] * (place < count)}
