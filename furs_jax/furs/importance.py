"""How much every channel matters, by which a warm start chooses those to remove."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.furs.steps import gate_gradients
from furs_jax.objectives import Batch, Variables
from furs_jax.training.step import AXIS, Apply, data_parallel, shard


def channel_importance(
    apply: Apply,
    channels: Sequence[int],
    variables: Variables,
    batches: Iterable[Batch],
    devices: Sequence[jax.Device],
) -> list[np.ndarray]:
    """Fisher information of every channel's gate, summed over images: L arrays, shape (C_l,).

    It is proportional to the rise of the loss when the channel is dropped at random, to second
    order (see `make_fisher_step`).
    """

    def importance_step(variables: Variables, batch: Batch) -> list[jax.Array]:
        gradients, _ = gate_gradients(
            apply, variables, batch["image"], channels, lambda _: batch["label"]
        )
        weight = batch["weight"][:, None]
        return jax.lax.psum([jnp.sum(weight * g[:, 0, 0] ** 2, axis=0) for g in gradients], AXIS)

    step = data_parallel(importance_step, devices)
    parts = [
        [np.asarray(x, np.float64) for x in step(variables, shard(batch, len(devices)))]
        for batch in batches
    ]
    return [np.sum(site, axis=0) for site in zip(*parts, strict=True)]
