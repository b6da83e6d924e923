"""Knowledge distillation (Hinton et al., arXiv 1503.02531): a teacher's outputs as targets."""

from typing import Any, NamedTuple

import jax
import optax

from furs_jax.training.step import Variables

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
