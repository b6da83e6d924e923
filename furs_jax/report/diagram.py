"""A network as blocks, its widths before and after: figure 4 of Chen et al., CVPR 2020."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path

from furs_jax.networks.recorded import RecordedNetwork
from furs_jax.report.captions import MINUS, short_name, shortened
from furs_jax.report.columns import (
    BAR_HEIGHTS,
    UNSEARCHED,
    Arc,
    Column,
    arcs_of_rows,
    diagram_notes,
    in_rows,
    network_arcs,
    network_columns,
    network_connections,
)
from furs_jax.report.palette import INK, NARROWER, NEUTRAL, WIDER
from furs_jax.report.sizes import size_changes
from furs_jax.report.style import new_figure, style
from furs_jax.run.text import printable

if TYPE_CHECKING:
    from furs_jax.networks.network import Network

_BAR = 0.62  # of a column's width
_BOTTOM = -0.86  # of a row's drawing; its tallest bar would be 1 high
_TEXT_ROWS = ("before", "after", "change")


def draw_network(
    net: "Network | RecordedNetwork",
    before: Sequence[int],
    after: Sequence[int],
    title: str | None = None,
) -> Figure:
    """Draws every site's width before and after.

    Args:
      net: a network, or what a run recorded of one.
      before, after: channel vectors, one width per site.
      title: by default the network's name with MACs and parameters of both, as far as known.
    """
    connections = network_connections(net)
    columns = network_columns(net, before, after, connections)
    arcs = network_arcs(columns, connections)
    rows = in_rows(columns, arcs)
    inside = arcs_of_rows(rows, arcs)
    left_out = len(connections.shortcuts if connections else ()) - sum(map(len, inside))
    widest = max(max(c.before, c.after) for c in columns)
    slots = max(map(len, rows))
    tops = [
        0.19 + max([*_tops(row, widest), *(_arc_top(arc, row, widest) for arc in own)])
        for row, own in zip(rows, inside, strict=True)
    ]
    heights = [top - _BOTTOM for top in tops]
    with style():
        # A row of few bars keeps their shape and doesn't fill the page.
        width = max(4.2, 0.95 + 0.32 * slots)
        figure = new_figure(0.75 + 0.78 * sum(heights), width)
        grid = {"height_ratios": heights}
        axes = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw=grid)[:, 0]
        for ax, row, own, top in zip(axes, rows, inside, tops, strict=True):
            ax.set(xlim=(-1.75, slots - 0.4), ylim=(_BOTTOM, top))
            _draw_row(ax, row, own, widest, net.image_shape[0])
        notes = [
            *diagram_notes(columns, connections, left_out),
            BAR_HEIGHTS,
        ]
        lines = [title or _title(net, before, after), f"({'; '.join(notes)})"]
        wrapped = [textwrap.fill(t, int(16.5 * width), break_on_hyphens=False) for t in lines]
        figure.suptitle("\n".join(wrapped), fontsize=7.5)
        handles = _legend(columns, arcs)
        per_line = len(handles) if slots > 14 else math.ceil(len(handles) / 2)
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=per_line,
            handlelength=1.4,
            columnspacing=1.0,
            handletextpad=0.4,
        )
    return figure


def _draw_row(
    ax: Axes,
    row: Sequence[Column],
    arcs: Sequence[Arc],
    widest: int,
    image_height: int,
) -> None:
    ax.axis("off")
    ax.plot((-0.75, len(row) - 0.35), (0, 0), color=INK, linewidth=0.8, zorder=1)

    for x, column in enumerate(row):
        _draw_bar(ax, x, column, widest)
    for line, text in enumerate(_TEXT_ROWS):
        ax.text(-1.7, _text_y(line), text, fontsize=6, color="#666666", va="center")
    tops = _tops(row, widest)
    for arc in arcs:
        top = _arc_top(arc, row, widest)
        _draw_shortcut(ax, arc.first, arc.last, top, arc.projection)
        for place in range(arc.first, arc.last + 1):
            tops[place] = max(tops[place], top)
    start = 0
    for block, group in itertools.groupby(row, key=lambda c: c.block):
        end = start + len(list(group)) - 1
        x, label = (start + end) / 2, shortened(short_name(block), max(8, 7 * (end - start + 1)))
        top = max(tops[start : end + 1]) + 0.04
        ax.text(x, top, label, fontsize=6, ha="center", color="#555555")
        start = end + 1
    start = 0
    for size, group in itertools.groupby(row, key=lambda c: c.layer.height):
        end = start + len(list(group)) - 1
        _draw_resolution(ax, start, end, image_height / size)
        start = end + 1


def _bar_height(width: int, widest: int) -> float:
    return math.sqrt(width / widest)


def _tops(row: Sequence[Column], widest: int) -> list[float]:
    """Where the space above each bar begins."""
    return [_bar_height(max(c.before, c.after), widest) + 0.09 for c in row]


def _arc_top(arc: Arc, row: Sequence[Column], widest: int) -> float:
    return max(_tops(row[arc.first : arc.last + 1], widest)) + 0.12 * arc.level


def _text_y(line: int) -> float:
    return -0.13 - 0.17 * line


def _draw_bar(ax: Axes, x: int, column: Column, widest: int) -> None:
    left = x - _BAR / 2
    ax.add_patch(
        Rectangle(
            (left, 0),
            _BAR,
            _bar_height(column.after, widest),
            facecolor=column.colour,
            edgecolor="white",
            linewidth=0,
            hatch="/////" if column.strided else None,
            zorder=2,
        )
    )
    outline = {"fill": False, "linewidth": 0.8, "linestyle": (0, (2, 1.2)), "zorder": 3}
    if column.searched:
        before = _bar_height(column.before, widest)
        ax.add_patch(Rectangle((left, 0), _BAR, before, edgecolor=INK, **outline))
    change = round(100 * (column.after / column.before - 1))
    percent = f"{change:+d}%".replace("-", MINUS) if column.after != column.before else "="
    texts = (str(column.before), str(column.after), percent)
    for line, text in enumerate(texts if column.searched else texts[:1]):
        ax.text(
            x,
            _text_y(line),
            text,
            fontsize=(6.3, 6.8, 5.6)[line],
            fontweight="bold" if line == 1 else "normal",
            color=column.colour if line and column.colour != NEUTRAL else INK,
            ha="center",
            va="center",
        )


def _draw_shortcut(ax: Axes, start: int, end: int, top: float, projection: bool) -> None:
    """From the sum before the block, over its bars, to the sum after it."""
    left, right, corner = start - 0.45, end + 0.5, 0.07
    points = [(left, 0), (left, top - corner), (left, top), (left + 0.12, top)]
    points += [(right - 0.12, top), (right, top), (right, top - corner), (right, 0.07)]
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE3, Path.CURVE3]
    codes += [Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO]
    line = (0, (3, 1.5)) if projection else "-"
    ax.add_patch(
        PathPatch(
            Path(points, codes), fill=False, color=INK, linewidth=0.8, linestyle=line, zorder=1
        )
    )
    # The sum: a circle with a plus in it.
    for marker, size in (("o", 4.4), ("+", 3.4)):
        ax.plot(right, 0, marker, ms=size, mfc="white", mec=INK, mew=0.7, zorder=4, clip_on=False)


def _draw_resolution(ax: Axes, start: int, end: int, factor: float) -> None:
    y = -0.66
    ax.plot((start - 0.38, end + 0.38), (y, y), color="#777777", linewidth=0.8)
    text = "1x1" if math.isinf(factor) else "full size" if factor == 1 else f"1/{factor:.3g}"
    wide = end - start > 2
    text = (
        f"{text} resolution"
        if wide and factor != 1
        else "full"
        if not wide and factor == 1
        else text
    )
    ax.text((start + end) / 2, y - 0.04, text, fontsize=6, ha="center", va="top", color="#555555")


def _legend(columns: Sequence[Column], arcs: Sequence[Arc]) -> list:
    colours = {c.colour for c in columns}
    handles: list = [
        Patch(facecolor=colour, label=label)
        for colour, label in (
            (WIDER, "wider"),
            (NARROWER, "narrower"),
            (NEUTRAL, "unchanged"),
            (UNSEARCHED, "not searched"),
        )
        if colour in colours
    ]
    outline = {"facecolor": "none", "edgecolor": INK, "linestyle": (0, (2, 1.2)), "linewidth": 0.8}
    handles.append(Patch(label="before", **outline))
    if any(c.strided for c in columns):
        hatch = {"facecolor": NEUTRAL, "edgecolor": "white", "hatch": "/////", "linewidth": 0}
        handles.append(Patch(label="downsampling", **hatch))
    for projection, label in ((False, "shortcut"), (True, "projection")):
        if any(arc.projection == projection for arc in arcs):
            line = (0, (3, 1.5)) if projection else "-"
            handles.append(Line2D([], [], color=INK, linewidth=0.8, linestyle=line, label=label))
    return handles


def _title(net: "Network | RecordedNetwork", before: Sequence[int], after: Sequence[int]) -> str:
    sizes = ", ".join(size_changes(net, before, after))
    return f"{printable(net.name)}: {sizes}" if sizes else printable(net.name)
