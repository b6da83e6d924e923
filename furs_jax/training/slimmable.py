"""Slimmable networks: one set of weights for all widths (Yu & Huang, ICCV 2019).

A narrower network is the last channels of each site, as residual sums align those; the others are
gated away, which is exact. BatchNorm normalises each width by its own batch, in training and after.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax.data.batches import evaluation_batches
from furs_jax.data.dataset import AnySplit
from furs_jax.errors import DivergedError
from furs_jax.gates import Gates
from furs_jax.machine import hosts
from furs_jax.objectives import Batch, Forward, Objective, Outcome, Variables, image_losses
from furs_jax.training.narrowed import Narrowed
from furs_jax.training.step import AXIS, data_parallel, module_rngs, shard
from furs_jax.training.trainer import Task

Apply = Callable[[Gates], tuple[jax.Array, Any]]  # as a `Forward` is called


def narrowed(network: Forward, widths: jax.Array | Sequence[int]) -> Forward:
    """The network without the channels in front; a pass costs as much as with them."""
    return network._replace(module=Narrowed(network.module, widths))


def cut(network: Forward, channels: Sequence[int]) -> Apply:
    """The network of the last channels, really as small; where networks grow in front."""
    module = network.module.clone(channels=tuple(channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), network.images[:1])
    small = network._replace(
        module=module,
        params=jax.tree.map(_last, network.params, shapes["params"]),
        batch_stats=jax.tree.map(_last, network.batch_stats, shapes.get("batch_stats", {})),
    )

    def apply(gates: Gates) -> tuple[jax.Array, Any]:
        last = gates and [g[..., -c:] for g, c in zip(gates, channels, strict=True)]
        return small(last)

    return apply


def _last(x: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
    sizes = zip(x.shape, shape.shape, strict=True)
    return x[tuple(slice(size - length, None) for size, length in sizes)]


@dataclasses.dataclass(frozen=True)
class Sandwich(Objective):
    """The sum of the losses of the largest, the smallest and some random widths (sandwich rule).

    A random width is one share of the channels for all sites. The recipe's dropout gates are those
    of all widths. BatchNorm's running statistics are the largest network's.

    Attributes:
      base: of each width.
      smallest: the widths of the smallest network.
      least: a random share is between it and one.
      unit: random widths are multiples of it.
      randoms: how many.
      cuts: whether the smallest may be `cut`.
      in_place: whether narrower networks learn the largest one's outputs in place of the labels
        (in-place distillation).
    """

    base: Objective
    smallest: tuple[int, ...]
    least: float = 0.1
    unit: int = 1
    randoms: int = 2
    cuts: bool = False
    in_place: bool = False

    def init(self, key: jax.Array, module: Any) -> Any:
        # Widths are the same on all devices, and so not by the key that `loss` gets.
        return {"base": self.base.init(key, module), "widths": jax.random.key_data(key)}

    def loss(
        self, network: Forward, extra: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> Outcome:
        channels, of = network.module.channels, extra["base"]
        largest = self.base.loss(network, of, batch, key, step)
        vectors = self.random_widths(extra["widths"], step, channels)
        narrow = [(cut if self.cuts else narrowed)(network, self.smallest)]
        narrow += [narrowed(network, widths) for widths in vectors]
        if self.in_place:  # the largest one's pass is not computed again
            target = jax.nn.softmax(jax.lax.stop_gradient(network(batch["gates"])[0]))
            losses = [
                jnp.mean(optax.softmax_cross_entropy(apply(batch["gates"])[0], target))
                for apply in narrow
            ]
        else:
            losses = [self.base.loss(apply, of, batch, key, step).loss for apply in narrow]
        metrics = {**largest.metrics, "largest": largest.loss, "smallest": losses[0]}
        return Outcome(largest.loss + sum(losses), metrics, largest.batch_stats)

    def random_widths(
        self, key_data: jax.Array, step: jax.Array, channels: Sequence[int]
    ) -> jax.Array:
        """The random networks of a step, int32, shape (randoms, L)."""
        key = jax.random.fold_in(jax.random.wrap_key_data(key_data), step)
        shares = jax.random.uniform(key, (self.randoms, 1), minval=self.least)
        units = jnp.asarray(channels, jnp.float32)[None] / self.unit
        widths = jnp.round(shares * units).astype(jnp.int32) * self.unit
        return jnp.maximum(widths, jnp.asarray(self.smallest, jnp.int32)[None])


def make_width_step(
    module: Any, preprocess: Callable[[jax.Array], jax.Array]
) -> Callable[[tuple[Variables, jax.Array], Batch], dict[str, jax.Array]]:
    """Evaluation at any width, BatchNorm on the batch's statistics; to be `data_parallel`.

    What a module draws in training it draws here, too, the same for all widths.

    Args:
      module: linen module with `axis_name` AXIS.
      preprocess: uint8 images to normalised ones.

    Returns:
      ((variables, widths, int32 (L,)), batch) -> sums of loss and count over the batch's images.
    """

    def step(replicated: tuple[Variables, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        variables, widths = replicated
        images, rngs = preprocess(batch["image"]), module_rngs(jax.random.key(0))
        statistics = variables.get("batch_stats", {})
        narrow = Narrowed(module, widths)
        logits, _ = Forward(narrow, variables["params"], statistics, images, rngs)(None)
        losses, weight = image_losses(logits, batch["label"]), batch["weight"]
        return jax.lax.psum({"loss": jnp.sum(weight * losses), "count": jnp.sum(weight)}, AXIS)

    return step


def whole_batches(split: AnySplit, images: int, batch_size: int) -> AnySplit:
    """As many whole batches as `images` fill, or one, of images evenly spread over the split.

    A split that is smaller than a batch is repeated.
    """
    total = len(split.labels)
    count = max(min(images, total) // batch_size, 1) * batch_size
    return split.take(np.arange(count) * total // count)


def width_losses(
    task: Task, channels: Sequence[int], variables: Variables, split: AnySplit
) -> Callable[[Sequence[Sequence[int]]], list[float]]:
    """Losses on a split of narrower networks, of the variables of that of `channels`.

    Args:
      split: of `whole_batches`, since images of weight zero would be normalised by, too.

    Returns:
      Vectors to their losses.

    Raises:
      DivergedError: (when called) a loss is not finite.
    """
    devices, place = len(task.devices), (hosts.index(), hosts.count())
    loaded = evaluation_batches(split, task.eval_batch_size, *place)
    batches = [shard(batch, devices) for batch in loaded]
    module = task.net.module(channels, dtype=task.dtype, axis_name=AXIS)
    step = data_parallel(make_width_step(module, task.preprocess), task.devices)

    def loss(sums: Sequence[dict[str, jax.Array]]) -> float:
        total, count = (math.fsum(float(s[name]) for s in sums) for name in ("loss", "count"))
        if not math.isfinite(total):
            raise DivergedError(
                f"a narrower network's loss is {total}; lower train.learning_rate, in another "
                "--workdir"
            )
        return total / count

    def losses(vectors: Sequence[Sequence[int]]) -> list[float]:
        widths = np.array(vectors, np.int32)
        return [loss(own) for own in [[step((variables, w), b) for b in batches] for w in widths]]

    return losses
