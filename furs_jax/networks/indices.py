"""How the indices of arrays' axes hang together: which are zero, needed or moved with which.

A node is an index of an axis of one or more arrays, such as a channel. Nodes come from a network's
variables and from what is computed of them, in order. Three questions are answered of every node:

- which sites' channels it is zero without (`Graph.zero_without`),
- which sites' channels it isn't needed without (`Graph.owners`),
- which nodes must change their places with it (`Graph.free_sites`).
"""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# An index that means its place; one of zeros; one of an axis whose indices are all alike.
FIXED, ZERO, ALIKE = 0, 1, 2

Channel = tuple[int, int]  # a site, and the number of its channel
OTHERS: Channel = (-1, -1)  # whatever is there without any site
Owners = frozenset[Channel]  # without them all, and only then, an index can go
_OTHERS, _NONE = frozenset([OTHERS]), frozenset()

Nodes = np.ndarray | None  # of each index of an axis; None: all alike


class _Step(NamedTuple):
    """Nodes made of others: of parents[0][i], parents[1][i] and so on the i-th."""

    kind: str  # "sum": zero where all parents are; "product": where one is; "gate": of a site
    nodes: np.ndarray
    parents: list[np.ndarray]
    deciding: np.ndarray | None = None  # by which a sum's parents are chosen from
    site: int = -1


class Graph:
    """The nodes of one computation."""

    def __init__(self) -> None:
        self.count = 3
        self._steps: list[_Step] = []
        self._needed: list[np.ndarray] = []
        self._moved: list[tuple[np.ndarray, np.ndarray]] = []  # nodes that are moved together
        self._seen: list[np.ndarray] = []
        self._gates: dict[int, np.ndarray] = {}  # site -> channels behind its first gate

    def new(self, size: int) -> np.ndarray:
        nodes = np.arange(self.count, self.count + size)
        self.count += size
        return nodes

    def see(self, *axes: Nodes) -> None:
        """Notes that something is done with an axis, the same with each of its indices."""
        self._seen += [nodes for nodes in axes if nodes is not None]

    def need(self, *axes: Nodes) -> None:
        """These are needed unless they are zero."""
        self._needed += [nodes for nodes in axes if nodes is not None]

    def fix(self, *axes: Nodes) -> None:
        """These are needed, and where they are."""
        self.need(*axes)
        self._moved += [(n, np.full_like(n, FIXED)) for n in axes if n is not None]

    def sum(self, parts: Sequence[Nodes], deciding: Nodes = None) -> Nodes:
        """Of values of which all must be zero for a zero."""
        some = [p for p in parts if p is None or np.any(p != ZERO)]
        return self._join("sum", some or list(parts[:1]), deciding)

    def product(self, parts: Sequence[Nodes]) -> Nodes:
        """Of values of which one must be zero for a zero."""
        return self._join("product", [p for p in parts if p is not None])

    def _join(self, kind: str, parts: list[Nodes], deciding: Nodes = None) -> Nodes:
        known = [p for p in (*parts, deciding) if p is not None]
        if not known:
            return None
        if all(np.all(p == FIXED) for p in known):
            return known[0]
        parts = [np.full_like(known[0], ALIKE) if p is None else p for p in parts]
        if all(np.array_equal(p, known[0]) for p in (*parts, *known)):
            return known[0]
        nodes = self.new(len(known[0]))
        self._steps.append(_Step(kind, nodes, parts, deciding))
        for part in (*parts, *([] if deciding is None else [deciding])):
            self._moved.append((nodes, part))
        return nodes

    def gate(self, site: int, x: np.ndarray) -> np.ndarray:
        """The channels of x behind their gates."""
        nodes = self.new(len(x))
        self._steps.append(_Step("gate", nodes, [x], site=site))
        self._moved += [(nodes, x), (nodes, self._gates.setdefault(site, nodes))]
        return nodes

    @functools.cached_property
    def zero_without(self) -> list[Owners]:
        """For each node the channels without which it is zero."""
        zero = [_OTHERS] * self.count
        zero[ZERO] = _NONE
        for step in self._steps:
            parents = [[zero[node] for node in part.tolist()] for part in step.parents]
            if step.kind == "gate":
                found = [frozenset([(step.site, place)]) for place in range(len(step.nodes))]
            else:
                join = _union if step.kind == "sum" else _either
                found = list(
                    map(functools.partial(functools.reduce, join), zip(*parents, strict=True))
                )
            zero[step.nodes[0] : step.nodes[-1] + 1] = found
        return zero

    def owners(self) -> list[Owners]:
        """For each node the channels without which nothing needs it; none: nothing ever does."""
        zero, owners = self.zero_without, [_NONE] * self.count
        for nodes in self._needed:
            for node in nodes.tolist():
                owners[node] = _OTHERS
        for step in reversed(self._steps):
            uses = owners[step.nodes[0] : step.nodes[-1] + 1]
            if step.kind == "gate":
                uses = [frozenset([(step.site, place)]) for place in range(len(uses))]
            parts = [part.tolist() for part in step.parents]
            if step.deciding is not None:
                parts.append(step.deciding.tolist())
            for own in parts:
                reasons = uses
                for other in parts if step.kind == "product" else ():
                    if other is not own:
                        reasons = [_either(a, zero[b]) for a, b in zip(reasons, other, strict=True)]
                for node, reason in zip(own, reasons, strict=True):
                    if node > ALIKE:
                        owners[node] = _union(owners[node], reason)
        return owners

    def free_sites(self) -> frozenset[int]:
        """The sites whose channels, with all that is moved with them, may come in any order."""
        group = self._groups()
        # What is done with a group: the sum of random numbers, one for each thing done.
        things = np.random.default_rng(0).integers(2**62, size=len(self._seen), dtype=np.uint64)
        done = np.zeros(self.count, np.uint64)
        for nodes, thing in zip(self._seen, things, strict=True):
            np.add.at(done, group[nodes], thing)
        gates = {site: group[nodes] for site, nodes in self._gates.items()}
        count = Counter(np.concatenate([[group[FIXED]], *gates.values()]).tolist())
        return frozenset(
            site
            for site, own in gates.items()
            if all(count[g] == 1 for g in own.tolist()) and len(set(done[own].tolist())) == 1
        )

    def _groups(self) -> np.ndarray:
        """For each node the number of those that are moved together."""
        pairs = np.concatenate([np.stack(pair) for pair in self._moved], axis=1)
        pairs = pairs[:, ~np.isin(pairs, (ZERO, ALIKE)).any(axis=0)]
        links = coo_array((np.ones(pairs.shape[1]), pairs), (self.count, self.count))
        return connected_components(links, directed=False)[1]

    def silent(self, silenced: Iterable[int]) -> dict[int, np.ndarray]:
        """For each site whether its channels are zero where these nodes of variables are."""
        zero = np.zeros(self.count, bool)
        zero[[ZERO, *silenced]] = True
        for step in self._steps:
            parents = np.stack([zero[part] for part in step.parents])
            zero[step.nodes] = parents.any(0) if step.kind == "product" else parents.all(0)
        return {site: zero[nodes] for site, nodes in self._gates.items()}


def _union(one: Owners, other: Owners) -> Owners:
    return one if one is other else one | other


def _either(one: Owners, other: Owners) -> Owners:
    """Of two reasons to be zero, or not to be needed, one that sites alone are."""
    if OTHERS not in one or (OTHERS in other and other == _OTHERS):
        return one
    return other if OTHERS not in other or one == _OTHERS else one
