"""What a training minimises: the seam. One file an objective, whose class is called `PLUGIN`.

It sees the network through `Forward`, may apply it as often as it likes, with gates of its own, and
tells any metrics it likes. `config.objective` names the file, or a class of the user's own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from furs_jax import plugins
from furs_jax.gates import Gates
from furs_jax.options.schema import Recipe

Variables = dict[str, Any]
Batch = dict[str, Any]


class Forward(NamedTuple):
    """The network on one step's images, as a function of its gates."""

    module: Any  # linen module
    params: Any
    batch_stats: Any
    images: jax.Array  # augmented, normalised
    rngs: dict[str, jax.Array]  # of whatever the module draws

    def __call__(self, gates: Gates) -> tuple[jax.Array, Any]:
        """Logits (N, K), and BatchNorm's statistics after these images."""
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        logits, updated = self.module.apply(
            variables, self.images, gates, train=True, mutable=["batch_stats"], rngs=self.rngs
        )
        return logits, updated.get("batch_stats", {})


class Outcome(NamedTuple):
    """Of one device's part of a batch."""

    loss: jax.Array  # mean, shape=()
    metrics: dict[str, jax.Array]  # any, means over the images, shape=()
    batch_stats: Any  # what BatchNorm goes on with


class Objective:
    """What a training minimises."""

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> "Objective":
        """The objective of a training by `recipe`."""
        del recipe
        return cls()

    def init(self, key: jax.Array, module: Any) -> Any:
        """What `loss` gets as `extra`: any pytree that stays as it is, None for nothing.

        Args:
          key: of the training's seed.
          module: the linen module that is trained.
        """
        del key, module
        return None

    def loss(
        self, network: Forward, extra: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> Outcome:
        """Loss and metrics of one device's part of a batch.

        Args:
          network: applied at the parameters that are trained.
          extra: of `init`.
          batch: image, normalised and augmented, shape (N, H, W, C); label, shape (N,); gates, of
            the recipe's dropout.
          key: of this step and device.
          step: int32, shape=().
        """
        raise NotImplementedError


def correct(logits: jax.Array, labels: jax.Array, most: int = 1) -> jax.Array:
    """1 where the label's logit is among the `most` largest, else 0; float32, shape (N,).

    Of equal logits the lower class comes first, as argmax has it, so that a constant network is
    right by chance and no more. Where a logit is NaN, or the label is no class, nothing is right.

    Args:
      logits: shape (N, K).
      labels: integers, shape (N,).
      most: 1 for top-1 accuracy, 5 for top-5.
    """
    classes, labels = jnp.arange(logits.shape[-1])[None], labels[:, None]
    own = classes == labels
    target = jnp.sum(jnp.where(own, logits, 0), axis=-1, keepdims=True)
    before = (logits > target) | ((logits == target) & (classes < labels))
    known = jnp.any(own, axis=-1) & ~jnp.any(jnp.isnan(logits), axis=-1)
    return (known & (jnp.sum(before, axis=-1) < most)).astype(jnp.float32)


def image_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of each image, shape (N,), from logits (N, K) and labels (N,)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def load_objective(name: str) -> type[Objective]:
    """The class that `config.objective` names.

    Raises:
      ConfigError: there is none.
    """
    return plugins.behind(plugins.load("objectives", name), Objective, f"objective={name!r}")
