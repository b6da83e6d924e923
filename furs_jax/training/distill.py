"""Knowledge distillation (Hinton et al., arXiv 1503.02531): a teacher's outputs as targets."""

import dataclasses
from typing import Any, NamedTuple

import jax
import optax

from furs_jax.objectives import Batch, Variables
from furs_jax.objectives.cross_entropy import CrossEntropy

ORIGINAL = "original"  # the teacher that a run trains itself


class Teacher(NamedTuple):
    """A trained network and how much it is listened to."""

    module: Any  # linen module
    variables: Variables
    alpha: float  # share of the teacher in the loss
    temperature: float


@dataclasses.dataclass(frozen=True)
class Distillation(CrossEntropy):
    """(1 - alpha) cross-entropy + alpha `distillation_loss`; the teacher sees the same images."""

    teacher: Teacher | None = None

    def init(self, key: jax.Array, module: Any) -> Variables:
        """The teacher's variables."""
        del key, module
        return self.teacher.variables

    def of(self, logits: jax.Array, extra: Variables, batch: Batch) -> jax.Array:
        """The loss of each image, shape (N,)."""
        _, _, alpha, temperature = self.teacher
        taught = jax.lax.stop_gradient(self.teacher.module.apply(extra, batch["image"]))
        own = super().of(logits, extra, batch)
        return (1.0 - alpha) * own + alpha * distillation_loss(logits, taught, temperature)


def distillation_loss(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of each image, shape (N,).

    Args:
      student, teacher: logits, float32, shape (N, K).
      temperature: T.
    """
    log_student = jax.nn.log_softmax(student / temperature)
    target = jax.nn.softmax(teacher / temperature)
    return temperature**2 * optax.kl_divergence(log_student, target)
