"""Warm start: the next round's network inherits the last one's weights.

A channel vector's change adds or removes leading entries of arrays, since residual sums align the
last channels (see `networks.blocks.fit_width`). Where the order of a site's channels is free, the
least important ones are put in front before, so that those are removed.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.errors import ConfigError
from furs_jax.furs.steps import gate_gradients
from furs_jax.networks import Network
from furs_jax.training.step import AXIS, Apply, Batch, TrainState, Variables, data_parallel, shard

# BatchNorm scale of a new channel: small, so that the function hardly changes, and not zero,
# where a ReLU would pass no gradient.
NEW_SCALE = 0.01

# site -> [(path of the array, axis)]
Axes = dict[int, list[tuple[str, int]]]


def inherit(
    old: TrainState, fresh: TrainState, order: Sequence[np.ndarray], axes: Axes, new_scale=NEW_SCALE
) -> TrainState:
    """The fresh state of a network with everything that the old one's state has for it.

    Weights, BatchNorm and momentum are carried over; the step, the seed and the schedule are the
    fresh ones. New channels get the fresh initial weights and a BatchNorm scale of `new_scale`.

    Args:
      old: state of the network of the old widths.
      fresh: initial state of the network of the new widths.
      order: for each site the old channels, those to remove first in front.
      axes: of the sites whose order is free, from `free_axes`.
      new_scale: 0 keeps the logits exactly.
    """

    def carry(name: str) -> Any:
        was, new = getattr(old, name), getattr(fresh, name)
        if name == "params":
            new = jax.tree_util.tree_map_with_path(
                lambda path, x: x * new_scale if path[-1].key == "scale" else x, new
            )
        if name in ("params", "batch_stats"):
            was = permute(was, order, axes)
        else:  # the optimiser's arrays that mirror parameters
            was = jax.tree.map(
                lambda x: permute(x, order, axes) if isinstance(x, dict) else x,
                was,
                is_leaf=lambda x: isinstance(x, dict),
            )
        return jax.tree.map(_trailing, was, new)

    names = ("params", "batch_stats", "opt_state")
    return fresh.replace(**{name: carry(name) for name in names})


def _trailing(old: jax.Array, new: jax.Array) -> jax.Array:
    """`new` with what both shapes share, the last entries of every axis, taken from `old`."""
    if new.ndim == 0:
        return new
    shared = tuple(slice(-min(a, b), None) for a, b in zip(old.shape, new.shape, strict=True))
    return jnp.asarray(new).at[shared].set(jnp.asarray(old)[shared])


def permute(tree: Any, order: Sequence[np.ndarray], axes: Axes) -> Any:
    """Reorders the channels of the sites in `axes`; order[site][i] is what comes i-th."""
    by_path = {}
    for site, places in axes.items():
        for path, axis in places:
            by_path.setdefault(path, []).append((axis, order[site]))

    def reorder(path: Any, x: jax.Array) -> jax.Array:
        for axis, index in by_path.get(jax.tree_util.keystr(path), []):
            x = jnp.take(x, index, axis=axis)
        return x

    return jax.tree_util.tree_map_with_path(reorder, tree)


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


def least_important_first(
    importance: Sequence[np.ndarray], axes: Axes, channels: Sequence[int], following: Sequence[int]
) -> list[np.ndarray]:
    """The order of each site's channels: by importance where the site is narrowed and may be."""
    return [
        np.argsort(importance[site], kind="stable")
        if site in axes and new < old
        else np.arange(old)
        for site, (old, new) in enumerate(zip(channels, following, strict=True))
    ]


@functools.lru_cache(maxsize=1)
def free_axes(net: Network) -> Axes:
    """The array axes of every site whose channels may come in any order.

    Found by building the network with the site wider by the least that it can be: the axes that
    grow are the site's. Its order is free where reversing it on those axes leaves the logits as
    they were.

    Raises:
      ConfigError: in this network channels don't come and go in front, so that weights can't be
        inherited this way.
    """
    with jax.default_matmul_precision("float32"):  # GPUs and TPUs round more than what is compared
        return _free_axes(net)


def _free_axes(net: Network) -> Axes:
    image = jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)

    def shapes(channels: Sequence[int]) -> Variables:
        return jax.eval_shape(net.module(channels).init, jax.random.key(0), image)

    channels, step = np.asarray(net.channels), net.multiple
    base = shapes(channels)
    flat = jax.tree_util.tree_leaves_with_path(base)
    variables, images = _random_like(base), _random_like(jax.tree.map(_two, image))
    module = net.module(channels)
    logits = module.apply(variables, images)
    axes: Axes = {}
    for site, width in enumerate(channels):
        wider = jax.tree.leaves(shapes(channels + step * np.eye(len(channels), dtype=int)[site]))
        grown = [
            # The first key names the collection ("params"), which `inherit` treats one by one.
            (jax.tree_util.keystr(path[1:]), axis)
            for (path, x), y in zip(flat, wider, strict=True)
            for axis in range(x.ndim)
            if y.shape[axis] == x.shape[axis] + step == width + step
        ]
        order = [np.arange(c)[::-1] for c in channels]
        reversed_ = {k: permute(v, order, {site: grown}) for k, v in variables.items()}
        if np.allclose(module.apply(reversed_, images), logits, rtol=1e-3, atol=1e-4):
            axes[site] = grown
    _check(net, variables, images, logits, channels + step, shapes(channels + step))
    return axes


def _check(
    net: Network, variables: Any, images: Any, logits: Any, channels: np.ndarray, shapes: Any
) -> None:
    """Growing every site by silent channels in front must leave the logits as they were."""

    def silence(path: Any, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x) if path[-1].key in ("scale", "bias") else x

    grown = jax.tree_util.tree_map_with_path(silence, _random_like(shapes))
    grown = jax.tree.map(_trailing, variables, grown)
    found = net.module(channels).apply(grown, images)
    if not np.allclose(found, logits, rtol=1e-3, atol=1e-4):
        raise ConfigError(
            f"search.warm_start can't be used with {net.name}: its layers don't take new channels "
            "in front (as after a concatenation); give search.warm_start=False"
        )


def _two(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)


def _random_like(shapes: Any) -> Any:
    """Arrays of these shapes, positive where they are vectors (variances must be)."""
    rng = np.random.default_rng(0)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if x.ndim == 1:
            return (0.5 + rng.random(x.shape)).astype(np.float32)
        scale = np.sqrt(2 / max(np.prod(x.shape[:-1]), 1)) if x.ndim != 4 or x.shape[0] != 2 else 1
        return rng.normal(0, scale, x.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)
