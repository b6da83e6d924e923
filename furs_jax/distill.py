"""Knowledge distillation (Hinton et al., arXiv 1503.02531): a teacher's outputs as targets."""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax import hosts
from furs_jax.checkpoint import Checkpoints
from furs_jax.errors import ConfigError
from furs_jax.networks import Network
from furs_jax.step import Variables

ORIGINAL = "original"  # the teacher that a run trains itself


class Teacher(NamedTuple):
    """A trained network and how much it is listened to."""

    module: Any  # linen module
    variables: Variables
    alpha: float  # share of the teacher in the loss
    temperature: float


def distillation_loss(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each image, shape (N,).

    Args:
      student, teacher: logits, float32, shape (N, K).
      temperature: T.
    """
    log_student = jax.nn.log_softmax(student / temperature)
    target = jax.nn.softmax(teacher / temperature)
    return temperature**2 * optax.kl_divergence(log_student, target)


def load_network(path: str, net: Network, option: str) -> tuple[tuple[int, ...], Variables]:
    """The channel vector and the variables (numpy) of a training's checkpoint.

    Args:
      path: a folder in a run's checkpoints/, such as runs/x/checkpoints/final_original_0.
      net: the network of which it is a vector.
      option: that named the path, for messages.

    Raises:
      ConfigError: there is no checkpoint, or it is another network's.
    """
    folder = pathlib.Path(path).expanduser()
    if not hosts.from_first(folder.is_dir):
        raise ConfigError(
            f"{option}={path}: there is no such folder; give one in a run's checkpoints/, such as "
            "runs/x/checkpoints/final_original_0"
        )
    with Checkpoints(folder) as checkpoints:
        record = checkpoints.record()
        if record is None or "channels" not in record:
            raise ConfigError(f"{option}={path} holds no checkpoint of a training")
        channels = tuple(record["channels"])
        if len(channels) != len(net.channels):
            raise ConfigError(
                f"{option}={path} has {len(channels)} sites, {net.name} {len(net.channels)}"
            )
        image = jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)
        shapes = jax.eval_shape(net.module(channels).init, jax.random.key(0), image)
        variables = checkpoints.restore_variables(shapes)
    return channels, jax.tree.map(np.asarray, variables)
