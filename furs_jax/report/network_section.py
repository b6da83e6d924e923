"""Figure 4 of Chen et al., CVPR 2020, for the page: widths before and after, block by block."""

import itertools
import math
from collections.abc import Sequence

from furs_jax.errors import ConfigError
from furs_jax.report.captions import MINUS, short_name
from furs_jax.report.charts import legend
from furs_jax.report.columns import (
    BAR_HEIGHTS,
    MOVED,
    Arc,
    Column,
    diagram_notes,
    network_arcs,
    network_columns,
    network_connections,
)
from furs_jax.report.markup import Markup, element, join
from furs_jax.report.run_record import RunRecord

_TALLEST = 84  # pixels


def network_blocks(run: RunRecord) -> Markup | None:
    """Bars of every site's width, grouped as blocks that wrap; None before anything is known."""
    before, after = run.before, run.channels
    if before is None or after is None:
        return None
    if run.moved_blocks:
        return element("p", f"Not drawn: {MOVED}.")
    try:
        net = run.network
    except ConfigError as error:
        return element("p", f"Not drawn: {error}.")
    connections = network_connections(net)
    columns = network_columns(net, before, after, connections)
    arcs = network_arcs(columns, connections)
    widest = max(max(c.before, c.after) for c in columns)
    blocks, drawn, place, height = [], 0, 0, net.image_shape[0]
    for _, group in itertools.groupby(columns, key=lambda c: c.block):
        own = list(group)
        inside = [a for a in arcs if place <= a.first and a.last < place + len(own)]
        blocks.append(_block(own, inside, widest, place, height))
        place, drawn, height = place + len(own), drawn + len(inside), own[-1].layer.height
    shortcuts = len(connections.shortcuts) if connections else 0
    notes = [*diagram_notes(columns, connections, shortcuts - drawn), BAR_HEIGHTS]
    keys = legend([("before", "same hollow"), ("wider", "wider"), ("narrower", "narrower")])
    told = element("p", "; ".join(notes), class_="note")
    return join(keys, element("div", *blocks, class_="blocks"), told)


def _block(
    columns: Sequence[Column], arcs: Sequence[Arc], widest: int, first: int, height: int
) -> Markup:
    """A block: its shortcuts as brackets above its layers, and the size of its output."""
    brackets = [
        element(
            "i",
            class_="bracket projection" if arc.projection else "bracket",
            style=f"grid-column: {arc.first - first + 1} / {arc.last - first + 2}",
            title=f"shortcut{' with a projection' if arc.projection else ''}",
        )
        for arc in arcs
    ]
    bars = [_bar(column, widest) for column in columns]
    out = columns[-1].layer
    size = f"{out.height}x{out.width}" if out.height != height or not first else ""
    return element(
        "div",
        *brackets,
        *bars,
        element("b", size, class_="resolution", style="grid-column: 1 / -1"),
        class_="block",
        style=f"grid-template-columns: repeat({len(columns)}, 2.1rem)",
    )


def _bar(column: Column, widest: int) -> Markup:
    def height(width: int) -> str:
        return f"height: {max(_TALLEST * math.sqrt(width / widest), 2):.0f}px"

    moved = column.after - column.before
    change = f"+{moved}" if moved > 0 else f"{MINUS}{-moved}" if moved else "="
    kind = "wider" if moved > 0 else "narrower" if moved else "same"
    name = short_name(column.layer.name)
    return element(
        "div",
        element(
            "div",
            element("i", class_="before", style=height(column.before)),
            element("i", class_="after", style=height(column.after)),
            class_="bars",
            style=f"height: {_TALLEST}px",
        ),
        element("b", column.after),
        element("small", change if column.searched else "fixed"),
        element("small", name, class_="name"),
        class_=f"site {kind if column.searched else 'fixed'}",
        title=f"{column.layer.name}: {column.before} channels, then {column.after}",
    )
