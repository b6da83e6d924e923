"""Warm start: the next round's network inherits the last one's weights.

A channel vector's change adds or removes leading entries of arrays, since residual sums align the
last channels (see `networks.blocks.fit_width`). Where the order of a site's channels is free, the
least important ones are put in front before, so that those are removed. All of it is done by numpy,
so that nothing is compiled for shapes that are met once.
"""

import functools
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr

from furs_jax.errors import ConfigError
from furs_jax.networks.axes import grows_in_front, site_axes
from furs_jax.networks.network import Network
from furs_jax.training.step import TrainState

# BatchNorm scale of a new channel: small, so that the function hardly changes, and not zero,
# where a ReLU would pass no gradient.
NEW_SCALE = 0.01

# site -> [(path of the array, axis)]
Axes = dict[int, list[tuple[str, int]]]


def inherit(
    old: TrainState,
    fresh: TrainState,
    order: Sequence[np.ndarray],
    axes: Axes,
    new_scale: float = NEW_SCALE,
    silent: Collection[str] = (),
) -> TrainState:
    """The fresh state of a network with everything that the old one's state has for it.

    Weights, BatchNorm and momentum are carried over; the step, the seed and the schedule are the
    fresh ones. New channels get the fresh initial weights and a BatchNorm scale of `new_scale`.
    Layers that the old network has not are fresh, and what is no longer there is dropped.

    Args:
      old: state of the network of the old widths.
      fresh: initial state of the network of the new widths.
      order: for each site the old channels, those to remove first in front.
      axes: of the sites whose order is free, from `free_axes`.
      new_scale: 0 keeps the logits exactly.
      silent: new layers whose BatchNorm's scale is zero: with those that end a block's branch, it
        begins as the identity.
    """

    def carry(name: str) -> Any:
        was, new = getattr(old, name), getattr(fresh, name)
        if name in ("params", "batch_stats"):
            was = permute(was, order, axes)
        else:  # the optimiser's arrays that mirror parameters
            was = jax.tree.map(
                lambda x: permute(x, order, axes) if isinstance(x, dict) else x,
                was,
                is_leaf=lambda x: isinstance(x, dict),
            )
        known = {keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(was)}

        def taken(path: Any, x: Any) -> Any:
            scale = name == "params" and path[-1].key == "scale"
            if keystr(path) in known:
                return _trailing(known[keystr(path)], _times(x, new_scale) if scale else x)
            return _times(x, 0.0) if scale and path[0].key in silent else x

        return jax.tree_util.tree_map_with_path(taken, new)

    names = ("params", "batch_stats", "opt_state")
    return fresh.replace(**{name: carry(name) for name in names})


def _times(x: Any, factor: float) -> np.ndarray:
    x = np.asarray(x)
    return x * x.dtype.type(factor)


def _trailing(old: Any, new: Any) -> Any:
    """`new` with what both shapes share, the last entries of every axis, taken from `old`."""
    if new.ndim == 0:
        return new
    result = np.array(new)
    shared = tuple(slice(-min(a, b), None) for a, b in zip(old.shape, new.shape, strict=True))
    result[shared] = np.asarray(old)[shared]
    return result


def permute(tree: Any, order: Sequence[np.ndarray], axes: Axes) -> Any:
    """Reorders the channels of the sites in `axes`; order[site][i] is what comes i-th."""
    by_path = {}
    for site, places in axes.items():
        for path, axis in places:
            by_path.setdefault(path, []).append((axis, order[site]))

    def reorder(path: Any, x: Any) -> Any:
        for axis, index in by_path.get(keystr(path), []):
            x = np.take(np.asarray(x), index, axis=axis)
        return x

    return jax.tree_util.tree_map_with_path(reorder, tree)


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


def following_widths(
    old: Network, channels: Sequence[int], new: Network, following: Sequence[int]
) -> list[int]:
    """The new widths of the old network's sites; those that are no longer there keep theirs."""
    widths = dict(zip(new.site_names, following, strict=True))
    return [widths.get(name, c) for name, c in zip(old.site_names, channels, strict=True)]


def added_branches(old: Network, new: Network) -> set[str]:
    """The layers that end the branches of the blocks that only the new network has."""
    ends = {new.site_names[join.site] for join in new.block_joins()} if new.depths else set()
    return ends.difference(old.site_names)


@functools.lru_cache(maxsize=1)
def free_axes(net: Network) -> Axes:
    """The array axes of every site whose channels may come in any order.

    Raises:
      ConfigError: in this network channels don't come and go in front, so that weights can't be
        inherited this way.
    """
    if not grows_in_front(net):
        raise ConfigError(
            f"search.warm_start can't be used with {net.name}: its layers don't take new channels "
            "in front (as after a concatenation); give search.warm_start=False"
        )
    found = site_axes(net)
    return {
        site: [(place.path, place.axis) for place in found.places[site]]
        for site, width in enumerate(net.channels)
        if site in found.free
        # Axes are reordered whole.
        and all(place.alone.all() and len(place.alone) == width for place in found.places[site])
    }
