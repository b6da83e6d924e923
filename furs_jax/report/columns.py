"""What a diagram of a network shows, and where: a column for each site, shortcuts above them."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from furs_jax.networks.layers import Connections, Layer
from furs_jax.networks.recorded import RecordedNetwork
from furs_jax.report.captions import short_name
from furs_jax.report.palette import NARROWER, NEUTRAL, WIDER

if TYPE_CHECKING:
    from furs_jax.networks.network import Network

MAX_COLUMNS = 20  # of bars side by side: more are unreadable on paper
UNSEARCHED = "#D9D9D9"
MOVED = "the searched network has other blocks than the original; the table of widths has both"
BAR_HEIGHTS = "bar height: square root of the channels"


class Column(NamedTuple):
    """One bar: a site, or the stem."""

    layer: Layer
    block: str  # layers of one block share it
    before: int
    after: int
    strided: bool  # whether this layer lowers the resolution

    @property
    def searched(self) -> bool:
        return self.layer.site is not None

    @property
    def colour(self) -> str:
        if not self.searched:
            return UNSEARCHED
        return (
            WIDER if self.after > self.before else NARROWER if self.after < self.before else NEUTRAL
        )


class Arc(NamedTuple):
    """A shortcut as it is drawn: over columns, from the first to the last."""

    first: int
    last: int
    level: int  # above how many others it passes
    projection: bool


def network_columns(
    net: "Network | RecordedNetwork",
    before: Sequence[int],
    after: Sequence[int],
    connections: Connections | None,
) -> list[Column]:
    """The stem and all sites, in order."""
    rows = [
        row
        for row in net.layers(net.channels)
        if not row.dense and (row.site is not None or row.height > 1)
    ]
    last = {row.site: index for index, row in enumerate(rows) if row.site is not None}
    strided = connections.strided if connections else ()
    columns = []
    for index, row in enumerate(rows):
        if row.site is None and index == 0:
            columns.append(Column(row, row.name, row.outputs, row.outputs, False))
        elif row.site is not None and last[row.site] == index:
            widths = before[row.site], after[row.site]
            columns.append(Column(row, _block(row.name), *widths, row.site in strided))
    return columns


def _block(name: str) -> str:
    if "/" in name:  # of one's own module, within its parts
        return name.rpartition("/")[0]
    block, _, layer = name.rpartition("_")
    return name if not block or layer.isdigit() else block


def network_connections(net: "Network | RecordedNetwork") -> Connections | None:
    """Shortcuts and concatenations, as traced or recorded; None where they can't be found."""
    if isinstance(net, RecordedNetwork):
        return net.connections
    from furs_jax.networks.connections import find_connections  # of no use to a run's report

    try:
        return find_connections(net)
    except Exception:  # whatever a module of one's own raises
        return None


def network_arcs(columns: Sequence[Column], connections: Connections | None) -> list[Arc]:
    """The shortcuts past neighbouring columns: others can't be drawn."""
    places = {column.layer.site: place for place, column in enumerate(columns) if column.searched}
    shortcuts = connections.shortcuts if connections else ()
    arcs: list[Arc] = []
    for shortcut in sorted(shortcuts, key=lambda s: len(s.past)):
        own = sorted(places[site] for site in shortcut.past)
        if len(own) > MAX_COLUMNS or own != list(range(own[0], own[-1] + 1)):
            continue
        below = [a.level + 1 for a in arcs if a.first <= own[-1] and own[0] <= a.last]
        arcs.append(Arc(own[0], own[-1], max(below, default=0), shortcut.projection))
    return sorted(arcs)


def reads_all(columns: Sequence[Column], connections: Connections) -> bool:
    """Whether every layer reads all layers before it in its block, as in a DenseNet."""
    blocks = [
        [c.layer.site for c in group if c.searched]
        for _, group in itertools.groupby(columns, key=lambda c: c.block)
    ]
    deep = bool(connections.concatenated) and max(map(len, blocks)) > 2
    return deep and all(
        set(block[:place]) <= set(connections.reads[site])
        for block in blocks
        for place, site in enumerate(block)
    )


def in_rows(columns: Sequence[Column], arcs: Sequence[Arc]) -> list[list[Column]]:
    """Rows of about equal length, broken between blocks and not below a shortcut."""
    count = -(-len(columns) // MAX_COLUMNS)
    within = {place for arc in arcs for place in range(arc.first + 1, arc.last + 1)}
    parts: list[list[Column]] = []
    for place, column in enumerate(columns):
        joined = place in within or (parts and parts[-1][-1].block == column.block)
        if joined and len(parts[-1]) < MAX_COLUMNS:
            parts[-1].append(column)
        else:
            parts.append([column])
    rows: list[list[Column]] = [[]]
    for part in parts:
        due = sum(map(len, rows)) + len(part) / 2 > len(columns) * len(rows) / count
        if rows[-1] and (due or len(rows[-1]) + len(part) > MAX_COLUMNS):
            rows.append([])
        rows[-1] += part
    return rows


def arcs_of_rows(rows: Sequence[Sequence[Column]], arcs: Sequence[Arc]) -> list[list[Arc]]:
    """Each row's arcs, counted from its first column; without those that leave the row."""
    starts = itertools.accumulate(map(len, rows), initial=0)
    return [
        [
            arc._replace(first=arc.first - start, last=arc.last - start)
            for arc in arcs
            if start <= arc.first and arc.last < end
        ]
        for start, end in itertools.pairwise(starts)
    ]


def diagram_notes(
    columns: Sequence[Column], connections: Connections | None, left_out: int
) -> Iterator[str]:
    """What the bars and arcs don't show of how the layers hang together."""
    if connections is None:
        yield "shortcuts are not known"
        return
    names = {c.layer.site: short_name(c.layer.name) for c in columns}
    if reads_all(columns, connections):
        yield "each layer reads all earlier layers of its stage"
    elif len(connections.concatenated) > 3:
        yield f"layers' outputs are concatenated at {len(connections.concatenated)} places"
    else:
        for sites in connections.concatenated:
            *first, last = (names[site] for site in sites)
            yield f"{', '.join(first)} and {last} are concatenated"
    if connections.branches:
        yield "branches that lie side by side are drawn one after another"
    if left_out:
        yield f"{left_out} more shortcut{'s' if left_out > 1 else ''}, not drawn"
