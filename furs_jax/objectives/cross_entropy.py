"""Cross-entropy with the labels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from furs_jax.objectives import Batch, Forward, Objective, Outcome, correct
from furs_jax.options.schema import Recipe


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Objective):
    """With the labels; tells the accuracy.

    Attributes:
      label_smoothing: share of the target spread evenly over the classes.
    """

    label_smoothing: float = 0.0

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> "CrossEntropy":
        return cls(recipe.label_smoothing)

    def loss(
        self, network: Forward, extra: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> Outcome:
        logits, batch_stats = network(batch["gates"])
        loss = self.of(logits, extra, batch).mean()
        return Outcome(loss, {"accuracy": jnp.mean(correct(logits, batch["label"]))}, batch_stats)

    def of(self, logits: jax.Array, extra: Any, batch: Batch) -> jax.Array:
        """The loss of each image, shape (N,)."""
        labels = jax.nn.one_hot(batch["label"], logits.shape[-1])
        targets = optax.smooth_labels(labels, self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)


PLUGIN = CrossEntropy
