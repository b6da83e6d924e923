"""Which axes of which arrays hold a site's channels: one map for whatever cuts, moves or adds them.

It is read off the trace of the network's computation, index by index; nothing is computed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from furs_jax.networks.indices import FIXED, OTHERS, Graph, Owners
from furs_jax.networks.primitives import Value, follow
from furs_jax.networks.searchable import Searchable
from furs_jax.networks.trace import mark_sites

Axis = tuple[str, int]  # the path of an array in its collection, and one of its axes

# Arrays of a normalisation, which makes zeros where they are zero.
_SILENCED = ("['scale']", "['bias']")


class Place(NamedTuple):
    """An axis that holds channels of a site.

    Attributes:
      path: of the array, as jax.tree_util.keystr gives it, within its collection.
      axis: of the array.
      channels: int, one for each index of the axis: the site's channel there, -1 where there is
        none, or one that shares the index in other ways.
      alone: bool, one for each index: whether it holds that channel and nothing else.
    """

    path: str
    axis: int
    channels: np.ndarray
    alone: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SiteAxes:
    """The map of a network built with one channel vector.

    Attributes:
      channels: the vector.
      owners: for each index of an axis the channels without all of which, and only then, it can
        go; empty where nothing reads it.
      free: sites whose channels may come in any order, in all of their places.
    """

    channels: tuple[int, ...]
    owners: Mapping[Axis, tuple[Owners, ...]]
    free: frozenset[int]

    @functools.cached_property
    def places(self) -> tuple[tuple[Place, ...], ...]:
        """For each site where its channels are."""
        found: list[list[Place]] = [[] for _ in self.channels]
        for (path, axis), owners in self.owners.items():
            for site in {site for index in owners for site, _ in index if site >= 0}:
                own = [[c for s, c in index if s == site] for index in owners]
                channels = np.array([c[0] if len(c) == 1 else -1 for c in own])
                alone = np.array([len(index) == 1 for index in owners]) & (channels >= 0)
                found[site].append(Place(path, axis, channels, alone))
        return tuple(map(tuple, found))

    def kept(self, removed: Sequence[Sequence[int]]) -> dict[Axis, np.ndarray]:
        """The indices of each axis that are left without some channels.

        Args:
          removed: of each site. What is left is a network of narrower sites where a site is free,
            or its first channels go: residual sums align the last ones.
        """
        gone = {(site, int(c)) for site, channels in enumerate(removed) for c in channels}
        return {
            axis: np.array([i for i, index in enumerate(owners) if not index or index - gone], int)
            for axis, owners in self.owners.items()
        }


class _Trace(NamedTuple):
    axes: SiteAxes
    graph: Graph
    nodes: dict[Axis, np.ndarray]
    scalars: bool  # whether a variable has no axes


def site_axes(net: Searchable, channels: Sequence[int] | None = None) -> SiteAxes:
    """The map of a network, by default with its initial channels; nothing is computed."""
    return _site_axes(net, net.channels if channels is None else tuple(map(int, channels)))


@functools.lru_cache(maxsize=4)
def _site_axes(net: Searchable, channels: tuple[int, ...]) -> SiteAxes:
    return _trace(net, channels).axes


def _trace(net: Searchable, channels: tuple[int, ...]) -> _Trace:
    marked = mark_sites(net.module(channels), net.image_shape)
    graph, nodes, inputs = Graph(), {}, []
    for path, x in jax.tree_util.tree_leaves_with_path(marked.variables):
        axes = tuple(graph.new(size) for size in x.shape)
        graph.see(*axes)
        # The first key names the collection ("params").
        nodes.update(((jax.tree_util.keystr(path[1:]), axis), own) for axis, own in enumerate(axes))
        inputs.append(Value(axes))
    inputs.append(Value(tuple(np.full(size, FIXED) for size in (1, *net.image_shape))))
    for output in follow(marked.jaxpr, inputs, graph):
        graph.fix(*output.axes)
    owners = graph.owners()
    by_axis = {axis: tuple(owners[i] for i in own.tolist()) for axis, own in nodes.items()}
    scalars = any(x.ndim == 0 for x in jax.tree.leaves(marked.variables))
    return _Trace(SiteAxes(channels, by_axis, graph.free_sites()), graph, nodes, scalars)


def silent_without(
    net: Searchable, arrays: Sequence[Sequence[tuple[Axis, np.ndarray]]]
) -> list[bool]:
    """For each site whether all its channels are zero where these parts of its arrays are.

    Args:
      net: the network.
      arrays: of each site axes, each with some of its indices.
    """
    trace, silent = _trace(net, net.channels), []
    for site, own in enumerate(arrays):
        nodes = [node for axis, index in own for node in trace.nodes[axis][index]]
        silent.append(bool(trace.graph.silent(nodes)[site].all()))
    return silent


def grows_in_front(net: Searchable) -> bool:
    """Whether new channels, in front of each site's, leave the others what they were.

    That is: with all sites wider by `net.multiple`, what arrays held is at the end of every axis,
    and new channels are zero where the normalisations' scales and biases for them are. An array
    without axes would not be known again.
    """
    step = net.multiple
    new = _trace(net, tuple(c + step for c in net.channels))
    silenced = []
    for axis, before in site_axes(net).owners.items():
        after = new.axes.owners[axis]
        added = len(after) - len(before)
        moved = [frozenset((s, c + step if s >= 0 else c) for s, c in index) for index in before]
        rest = [frozenset(o for o in index if o == OTHERS or o[1] >= step) for index in after]
        if rest != [frozenset()] * added + moved:
            return False
        if axis[0].endswith(_SILENCED):
            silenced += new.nodes[axis][:added].tolist()
    silent = new.graph.silent(silenced)
    return not new.scalars and all(channels[:step].all() for channels in silent.values())
