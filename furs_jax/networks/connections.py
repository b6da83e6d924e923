"""What a network's layers read, from the trace of its computation: shortcuts, concatenations."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from furs_jax.gates import SITE_MARK
from furs_jax.networks.jaxprs import inner_jaxprs
from furs_jax.networks.layers import Connections, Shortcut
from furs_jax.networks.searchable import Searchable
from furs_jax.networks.trace import mark_sites

_SUMS = ("add", "add_any", "scatter-add")  # primitives' names

Layers = frozenset[int]  # numbers of convolutions and dense layers, in order of computation


def find_connections(net: Searchable) -> Connections:
    """The connections of a network, traced with its initial channels; nothing is computed."""
    jaxpr = mark_sites(net.module(net.channels), net.image_shape).jaxpr
    flow = _Flow([], [], [], {}, [])
    _follow(jaxpr, [frozenset()] * len(jaxpr.invars), flow)
    return _connections(flow, len(net.channels))


class _Join(NamedTuple):
    """A sum or a concatenation of what different layers made."""

    sides: tuple[Layers, ...]  # the last layers of each side
    is_sum: bool


class _Flow(NamedTuple):
    reads: list[Layers]  # of each layer
    depths: list[int]  # most layers in a row that end with this one
    strided: list[bool]
    owners: dict[int, int]  # site -> its layer
    joins: list[_Join]

    def add_layer(self, reads: Layers, strides: Sequence[int]) -> int:
        self.strided.append(max(strides, default=1) > 1)
        self.depths.append(1 + max((self.depths[layer] for layer in reads), default=0))
        self.reads.append(reads)
        return len(self.reads) - 1

    def behind(self, layers: Iterable[int]) -> set[int]:
        """The layers and all that they depend on."""
        found, left = set(), list(layers)
        while left:
            if (layer := left.pop()) not in found:
                found.add(layer)
                left += self.reads[layer]
        return found


def _follow(jaxpr: Any, inputs: Sequence[Layers], flow: _Flow) -> list[Layers]:
    """Follows values through a computation; returns the last layers behind each output."""
    last = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(variable: Any) -> Layers:
        return frozenset() if hasattr(variable, "val") else last.get(variable, frozenset())

    for equation in jaxpr.eqns:
        operands = [of(variable) for variable in equation.invars]
        merged = frozenset().union(*operands)
        kind, mark = equation.primitive.name, str(equation.params.get("name", ""))
        if kind in ("conv_general_dilated", "dot_general"):
            merged = frozenset([flow.add_layer(merged, equation.params.get("window_strides", ()))])
        elif kind in (*_SUMS, "concatenate"):
            _join(operands, kind in _SUMS, flow)
        elif mark.startswith(SITE_MARK) and merged:
            # Behind a sum, the layer that the most layers lead to; its shortcut is older.
            owner = max(merged, key=flow.depths.__getitem__)
            flow.owners.setdefault(int(mark.removeprefix(SITE_MARK)), owner)
        outputs = [merged] * len(equation.outvars)
        for inner in inner_jaxprs(equation):
            same = len(inner.invars) == len(operands)
            results = _follow(inner, operands if same else [merged] * len(inner.invars), flow)
            outputs = results if len(results) == len(outputs) else outputs
        last.update(zip(equation.outvars, outputs, strict=True))
    return [of(variable) for variable in jaxpr.outvars]


def _join(operands: Sequence[Layers], is_sum: bool, flow: _Flow) -> None:
    """Notes a join of different layers."""
    sides = [side for side in dict.fromkeys(operands) if side]
    if not is_sum:  # with a part of itself, where a sum is made of unequal widths: none
        sides = [side for side in sides if not any(side < other for other in sides)]
    if len(sides) > 1:
        flow.joins.append(_Join(tuple(sides), is_sum))


def _connections(flow: _Flow, sites: int) -> Connections:
    site_of = {layer: site for site, layer in flow.owners.items()}

    def known(layers: Iterable[int]) -> tuple[int, ...]:
        return tuple(site_of[layer] for layer in sorted(layers) if layer in site_of)

    shortcuts, concatenated, branches = [], [], False
    for join in flow.joins:
        if not join.is_sum:
            concatenated.append(known(frozenset().union(*join.sides)))
        for one, other in itertools.combinations(map(flow.behind, join.sides), 2):
            short, long = sorted((one - other, other - one), key=lambda own: (known(own), len(own)))
            branches |= bool(known(short))
            if join.is_sum and known(long) and not known(short) and len(short) < 2:
                shortcuts.append(Shortcut(known(long), bool(short)))
    reads = [
        known(flow.reads[flow.owners[site]]) if site in flow.owners else () for site in range(sites)
    ]
    unique = {sites for sites in concatenated if len(sites) > 1}
    strided = known(layer for layer, is_strided in enumerate(flow.strided) if is_strided)
    return Connections(tuple(shortcuts), tuple(sorted(unique)), tuple(reads), strided, branches)
