"""Convolutions that a low-cost layer lets be skipped: how often, what is left, and to steer it.

Dong et al., CVPR 2017; see `furs_jax.networks.blocks.ConvBatchNorm`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.data.batches import evaluation_batches
from furs_jax.data.dataset import AnySplit
from furs_jax.gates import Gates
from furs_jax.machine import hosts
from furs_jax.networks.blocks import BEFORE_RELU
from furs_jax.networks.network import Network
from furs_jax.objectives import Batch, Forward, Objective, Outcome, Variables
from furs_jax.training.step import AXIS, data_parallel, shard
from furs_jax.training.trainer import Task


class Skippable(NamedTuple):
    """The convolutions of a network that have a low-cost layer, and what its layers cost."""

    names: tuple[str, ...]
    macs: tuple[int, ...]  # of each of them
    total: int  # MACs of all layers, the low-cost ones too

    def left(self, zeros: Sequence[Any]) -> Any:
        """The theoretical MACs where shares `zeros` of the convolutions' places are skipped."""
        return self.total - sum(z * macs for z, macs in zip(zeros, self.macs, strict=True))


def skippable(net: Network) -> Skippable:
    """Of a network's own vector; its template's `skips` says which sites'."""
    rows = [row for row in net.layers(net.channels) if row.site in net.template.skips]
    own = [row for row in rows if row.kernel == 3]  # a projection shortcut shares a site
    names, macs = zip(*((row.name, row.macs) for row in own), strict=True)
    return Skippable(names, macs, net.macs(net.channels))


def zeros_of(intermediates: Any, names: Sequence[str]) -> list[jax.Array]:
    """Where the low-cost layers are zero, bool, each of shape (N, H, W, 1)."""
    return [_before_relu(intermediates, name) <= 0 for name in names]


def _before_relu(intermediates: Any, name: str) -> jax.Array:
    return intermediates[name][BEFORE_RELU][0]


def measure_zeros(task: Task, variables: Variables, split: AnySplit) -> list[float]:
    """The share of zeros of each of the task's network's low-cost layers, over a split's images."""
    net, devices, place = task.net, len(task.devices), (hosts.index(), hosts.count())
    names, module = skippable(net).names, net.module(net.channels, dtype=task.dtype)

    def step(variables: Variables, batch: Batch) -> jax.Array:
        images, weight = task.preprocess(batch["image"]), batch["weight"]
        _, met = module.apply(variables, images, mutable=["intermediates"])
        zeros = zeros_of(met["intermediates"], names)
        shares = [jnp.mean(zero.astype(jnp.float32), axis=(1, 2, 3)) for zero in zeros]
        sums = [jnp.sum(weight * share) for share in (*shares, jnp.ones_like(weight))]
        return jax.lax.psum(jnp.stack(sums), AXIS)

    compiled, total = data_parallel(step, task.devices), np.zeros(len(names) + 1)
    for batch in evaluation_batches(split, task.eval_batch_size, *place):
        total += np.asarray(compiled(variables, shard(batch, devices)), np.float64)
    return (total[:-1] / total[-1]).tolist()


@dataclasses.dataclass(frozen=True)
class SkipPenalty(Objective):
    """Adds weight * relu(theoretical MACs / budget - 1) to another objective.

    The MACs are those of the batch. The count of zeros has no gradient: it gets that of
    sigmoid(-x), x being what the low-cost layer's ReLU sees.
    """

    base: Objective
    net: Skippable
    budget: float  # MACs
    weight: float

    def init(self, key: jax.Array, module: Any) -> Any:
        return self.base.init(key, module)

    def loss(
        self, network: Forward, extra: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> Outcome:
        met = []

        def apply(gates: Gates) -> tuple[jax.Array, Any]:
            variables = {"params": network.params, "batch_stats": network.batch_stats}
            collections = ["batch_stats", "intermediates"]
            logits, updated = network.module.apply(
                variables,
                network.images,
                gates,
                train=True,
                mutable=collections,
                rngs=network.rngs,
            )
            met.append(updated["intermediates"])
            return logits, updated["batch_stats"]

        outcome = self.base.loss(apply, extra, batch, key, step)
        shares = jnp.stack([_share(_before_relu(met[0], name)) for name in self.net.names])
        macs = self.net.left(list(jax.lax.pmean(shares, AXIS)))
        above = jax.nn.relu(macs / self.budget - 1)
        metrics = {**outcome.metrics, "theoretical_macs": macs}
        return outcome._replace(loss=outcome.loss + self.weight * above, metrics=metrics)


def _share(x: jax.Array) -> jax.Array:
    """Of values that are not above zero, with the gradient of a sigmoid; shape=()."""
    x = x.astype(jnp.float32)
    soft = jax.nn.sigmoid(-x)
    return jnp.mean(soft + jax.lax.stop_gradient((x <= 0).astype(jnp.float32) - soft))
