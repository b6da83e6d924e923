"""The computation of a trained network's logits, traced for any number of images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jax.ad_checkpoint import checkpoint_name

from furs_jax.errors import ConfigError
from furs_jax.export._known import IMAGES
from furs_jax.jobs.predicting import TrainedNetwork
from furs_jax.objectives import Variables

ENTERS, LEAVES = "furs_enters_", "furs_leaves_"  # and the path of a layer that is known as a whole


class Traced(NamedTuple):
    """A traced computation.

    Attributes:
      jaxpr: of the variables, in the order of `names`, and the images to the logits.
      names: the variables' paths, "params/stem/conv/kernel".
      norms: the BatchNorms by their paths, "stem/bn"; what each does lies between two marks.
    """

    jaxpr: Any
    names: tuple[str, ...]
    norms: dict[str, nn.BatchNorm]


def symbolic_images(found: TrainedNetwork) -> jax.ShapeDtypeStruct:
    """The images that `predict` takes, as many as one likes."""
    (count,) = jax_export.symbolic_shape(IMAGES)
    return jax.ShapeDtypeStruct((count, *found.preprocessing.image_shape), jnp.uint8)


def trace(found: TrainedNetwork) -> Traced:
    """Traces `found.apply`; nothing is computed.

    Raises:
      ConfigError: the network can't be traced for any number of images.
    """
    norms: dict[str, nn.BatchNorm] = {}

    def apply(variables: Variables, images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_marking(norms)):
            return found.apply(variables, images)

    try:
        traced = jax.make_jaxpr(apply)(found.variables, symbolic_images(found))
    except Exception as error:  # whatever a module of one's own makes of it
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(
            f"{found.net.name} can't be exported for any number of images: {reason}"
        ) from error
    paths = jax.tree_util.tree_leaves_with_path(found.variables)
    names = tuple("/".join(str(entry.key) for entry in path) for path, _ in paths)
    return Traced(traced, names, norms)


def _marking(norms: dict[str, nn.BatchNorm]) -> Callable[..., Any]:
    """An interceptor of calls of modules that marks what goes into BatchNorms and comes out."""

    def mark(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        path = "/".join(module.path)
        if (
            type(module) is not nn.BatchNorm
            or context.method_name != "__call__"
            or (module.axis, np.dtype(module.dtype or np.float32)) != (-1, np.float32)
            or args[0].ndim not in (2, 4)
            or path in norms  # called again: known by what it computes alone
        ):
            return call(*args, **kwargs)
        norms[path] = module
        x, *rest = args
        y = call(checkpoint_name(x, f"{ENTERS}{path}"), *rest, **kwargs)
        return checkpoint_name(y, f"{LEAVES}{path}")

    return mark
