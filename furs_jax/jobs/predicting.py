"""What `furs_jax.load` gives: networks that predict."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import Exported

from furs_jax.data.augment import normalise
from furs_jax.errors import ConfigError
from furs_jax.networks.network import Network
from furs_jax.objectives import Variables

_AT_ONCE = 64  # images that are computed together; bounds the memory


class Preprocessing(NamedTuple):
    """What becomes of a uint8 image before the network: (image / 255 - mean) / std."""

    mean: tuple[float, ...]  # of each image channel, of 1
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]  # (H, W, C)
    # Share of the shorter side that is cut from the middle of an image of another size, and resized
    eval_crop: float = 1.0


class Predictor:
    """A trained network, as far as it predicts.

    Attributes:
      classes: their names, in order of the outputs; their numbers, "0" and on, where the data set
        has no names.
      preprocessing: of the images, as in the training.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def _compute(self, images: np.ndarray) -> jax.Array:
        """The logits of up to 64 images."""
        raise NotImplementedError

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's outputs, float32, shape (N, K); as of `predict`."""
        images, shape = np.asarray(images), self.preprocessing.image_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise ConfigError(
                f"predict takes uint8 images of the shape (N, {', '.join(map(str, shape))}), not "
                f"{images.dtype} of {images.shape}"
            )
        found = [np.zeros((0, len(self.classes)), np.float32)]
        for begin in range(0, len(images), _AT_ONCE):
            part = images[begin : begin + _AT_ONCE]
            # Up to powers of two, so that few sizes are compiled.
            missing = (1 << (len(part) - 1).bit_length()) - len(part)
            filled = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
            found.append(np.asarray(self._compute(filled), np.float32)[: len(part)])
        return np.concatenate(found)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probability of each class, float32, shape (N, K): the softmax of the logits.

        Args:
          images: uint8, shape (N, H, W, C), with H, W and C as in `preprocessing`. They are what
            the run tested on: of a set whose images differ in size, crops of `data.image_size`.

        Raises:
          ConfigError: they have another type or shape.
        """
        logits = self.logits(images)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork(Predictor):
    """A network as a run has trained it; see `Predictor`.

    Attributes:
      net: the searchable network.
      channels: the vector that was trained.
      variables: {"params", "batch_stats"}, numpy arrays, of net.module(channels).
      classes, preprocessing: see `Predictor`.
      dtype: of the computation.
    """

    net: Network
    channels: tuple[int, ...]
    variables: Variables
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    dtype: str

    def apply(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Float32 logits (N, K) of uint8 images (N, H, W, C): what is exported."""
        module = self.net.module(self.channels, dtype=self.dtype)
        inputs = normalise(images, self.preprocessing.mean, self.preprocessing.std)
        return module.apply(variables, inputs).astype(jnp.float32)

    @functools.cached_property
    def _compute(self) -> Callable[[np.ndarray], jax.Array]:
        return functools.partial(jax.jit(self.apply), jax.device_put(self.variables))


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedProgram(Predictor):
    """A network as StableHLO: it predicts, and is not known otherwise; see `Predictor`.

    Attributes:
      exported: the program, of uint8 images (N, H, W, C) to float32 logits (N, K).
      classes, preprocessing: see `Predictor`.
    """

    exported: Exported
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    @functools.cached_property
    def _compute(self) -> Callable[[np.ndarray], jax.Array]:
        return jax.jit(self.exported.call)
