"""Training a supernet's weights and its choice of widths together (Dong and Yang, NeurIPS 2019)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax.networks.counting import MacsModel
from furs_jax.networks.supernet import Draw, draw_two
from furs_jax.objectives import Batch, Forward, Objective, Outcome
from furs_jax.training.recipe import Recipe, make_optimizer

_LOGITS = "logits"  # of the supernet's parameters, trained by another optimiser than all others


class Drawn(NamedTuple):
    """A supernet with a draw, applied as any module is."""

    module: Any  # of `WidthChoice`
    draw: Draw

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        return self.module.apply(variables, *args, draw=self.draw, **kwargs)


@dataclasses.dataclass(frozen=True, eq=False)
class Penalty:
    """What steers the choice of widths to a budget (section 3.1, with the bounds of their code).

    Attributes:
      macs: of a vector.
      widths: of the candidates, int, shape (L, 8).
      need: MACs that may be spent.
      tolerance: share of the widest network's MACs that may stay unused.
      weight: of the term.
    """

    macs: MacsModel
    widths: np.ndarray
    need: float
    tolerance: float
    weight: float

    def expected(self, logits: jax.Array) -> jax.Array:
        """MACs of the expected widths, shape (); the logits' shape is (L, 8)."""
        widths = jnp.asarray(self.widths, jnp.float32)
        return self.macs.smooth(jnp.sum(jax.nn.softmax(logits) * widths, axis=1))

    def __call__(self, logits: jax.Array) -> jax.Array:
        """weight * log(expected) where the likeliest network costs more than is needed, shape ().

        Its negative where that costs less by more than the tolerance, and zero between.
        """
        widths = jnp.asarray(self.widths, jnp.float32)
        likeliest = jnp.argmax(logits, axis=1)[:, None]
        now = self.macs.smooth(jnp.take_along_axis(widths, likeliest, axis=1)[:, 0])
        least = self.need - self.tolerance * self.macs(self.widths[:, -1])
        sign = (now > self.need).astype(jnp.float32) - (now < least).astype(jnp.float32)
        return self.weight * sign * jnp.log(self.expected(logits))


@dataclasses.dataclass(frozen=True)
class WidthSearch(Objective):
    """`inner`, of the weights on one half of each batch and of the logits on the other.

    The images are those of `furs_jax.data.halves`. Each half has its own draw, which is the same on
    all devices. Both losses are taken at the same weights and logits, and both are updated at once;
    the paper's code updates the weights first.

    Attributes:
      inner: what is minimised by both.
      penalty: of the logits.
      temperature: of the Gumbel-softmax, at a step.
    """

    inner: Objective
    penalty: Penalty
    temperature: Callable[[jax.Array], jax.Array]

    def init(self, key: jax.Array, module: Any) -> Any:
        return {"key": jax.random.key_data(key), "inner": self.inner.init(key, module)}

    def loss(
        self, network: Forward, extra: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> Outcome:
        logits, weights = network.params[_LOGITS], network.params["net"]
        fixed, fixed_weights = jax.lax.stop_gradient((logits, weights))
        step_key = jax.random.fold_in(jax.random.wrap_key_data(extra["key"]), step)
        halves = []
        for half, (own_logits, own_weights) in enumerate(
            ((fixed, weights), (logits, fixed_weights))
        ):
            draw_key = jax.random.fold_in(step_key, half)
            draw = draw_two(draw_key, own_logits, self.temperature(step))
            images, given = jax.tree.map(lambda x: x[half::2], (network.images, batch))  # noqa: B023
            drawn = network._replace(
                module=Drawn(network.module, draw),
                params={"net": own_weights, _LOGITS: own_logits},
                images=images,
            )
            halves.append(self.inner.loss(drawn, extra["inner"], given, key, step))
        of_weights, of_logits = halves
        return Outcome(
            of_weights.loss + of_logits.loss + self.penalty(logits),
            {
                **of_weights.metrics,
                "weights_loss": of_weights.loss,
                "logits_loss": of_logits.loss,
                "expected_macs": self.penalty.expected(logits),
            },
            of_weights.batch_stats,
        )


def cosine_temperature(first: float, last: float, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Step -> temperature, from `first` at step 0 to `last` after `steps`, by a cosine."""

    def temperature(step: jax.Array) -> jax.Array:
        share = step.astype(jnp.float32) / steps
        return last + (first - last) * (1 + jnp.cos(math.pi * share)) / 2

    return temperature


def width_optimizer(
    recipe: Recipe, logit_optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The recipe's for the weights, another one for the logits."""
    return optax.partition(
        {"weights": make_optimizer(recipe), _LOGITS: logit_optimizer},
        lambda params: {name: _LOGITS if name == _LOGITS else "weights" for name in params},
    )


def adam(
    learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> optax.GradientTransformation:
    """Adam as in PyTorch: the decay is added to the gradient."""
    chain = optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, *betas))

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to whole numbers
            return chain.update(grads, state, params)

    return optax.GradientTransformation(chain.init, update)
