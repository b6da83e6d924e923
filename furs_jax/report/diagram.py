"""A network as blocks, its widths before and after: figure 4 of Chen et al., CVPR 2020."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path

from furs_jax.networks import Network
from furs_jax.report.style import (
    INK,
    MINUS,
    NARROWER,
    NEUTRAL,
    WIDER,
    new_figure,
    short_name,
    style,
)
from furs_jax.resources import Layer

MAX_COLUMNS = 20  # of bars side by side: more are unreadable on paper
_UNSEARCHED = "#D9D9D9"
_BAR = 0.62  # of a column's width
_BOTTOM = -0.86  # of a row's drawing; its tallest bar would be 1 high
_TEXT_ROWS = ("before", "after", "change")


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
            return _UNSEARCHED
        return (
            WIDER if self.after > self.before else NARROWER if self.after < self.before else NEUTRAL
        )


class Shortcut(NamedTuple):
    """A path around a block."""

    block: str
    projection: bool


def draw_network(
    net: Network, before: Sequence[int], after: Sequence[int], title: str | None = None
) -> Figure:
    """Draws every site's width before and after.

    Args:
      net: for its table of layers.
      before, after: channel vectors, one width per site.
      title: by default the network's name with MACs and parameters of both.
    """
    columns = network_columns(net, before, after)
    shortcuts, concatenates = network_shortcuts(net, columns)
    rows = _wrap(columns)
    widest = max(max(c.before, c.after) for c in columns)
    slots = max(map(len, rows))
    tops = [_bar_height(max(max(c.before, c.after) for c in row), widest) + 0.28 for row in rows]
    heights = [top - _BOTTOM for top in tops]
    with style():
        # A row of few bars keeps their shape and doesn't fill the page.
        width = max(4.2, 0.95 + 0.32 * slots)
        figure = new_figure(0.75 + 0.78 * sum(heights), width)
        grid = {"height_ratios": heights}
        axes = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw=grid)[:, 0]
        for ax, row, top in zip(axes, rows, tops, strict=True):
            ax.set(xlim=(-1.75, slots - 0.4), ylim=(_BOTTOM, top))
            _draw_row(ax, row, shortcuts, widest, net.image_shape[0])
        note = "each layer reads all earlier layers of its stage; " if concatenates else ""
        title = title or _title(net, before, after)
        title = textwrap.fill(title, int(15 * width), break_on_hyphens=False)
        figure.suptitle(f"{title}\n({note}bar height: square root of the channels)", fontsize=7.5)
        handles = _legend(columns, shortcuts)
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


def network_columns(net: Network, before: Sequence[int], after: Sequence[int]) -> list[Column]:
    """The stem and all sites, in order."""
    rows = [
        row
        for row in net.layers(before)
        if not row.dense and (row.site is not None or row.height > 1)
    ]
    last = {row.site: index for index, row in enumerate(rows) if row.site is not None}
    columns = []
    for index, row in enumerate(rows):
        if row.site is None and index == 0:
            columns.append(Column(row, row.name, row.outputs, row.outputs, False))
        elif row.site is not None and last[row.site] == index:
            columns.append(
                Column(
                    row, _block(row.name), before[row.site], after[row.site], _strided(rows, row)
                )
            )
    return columns


def _strided(rows: Sequence[Layer], row: Layer) -> bool:
    """Whether the site's own layers lower the resolution, not a pooling or transition before it."""
    own = [i for i, r in enumerate(rows) if r.site == row.site and not r.name.endswith("_shortcut")]
    if own[0] == 0:
        return False
    # A projection's row comes first, or beside; the layer before the site is the one to compare.
    source = next(r for r in reversed(rows[: own[0]]) if not r.name.endswith("_shortcut"))
    inner = any(rows[a].height > rows[b].height for a, b in itertools.pairwise(own))
    return inner or (source.site is not None and source.height > rows[own[0]].height)


def _block(name: str) -> str:
    block, _, layer = name.rpartition("_")
    return name if not block or layer.isdigit() else block


def network_shortcuts(net: Network, columns: Sequence[Column]) -> tuple[list[Shortcut], bool]:
    """The shortcuts, and whether layers are concatenated, as the widths tell.

    A block's last site is made 1 and 2 channels wide. Where the next layer's input is as wide,
    there is no shortcut; where it doesn't change, the shortcut's width remains; where it grows
    from a larger width, outputs are concatenated.
    """
    if "padding" in {field.name for field in dataclasses.fields(net.template)}:
        # In "local" the output's width rules, so that a shortcut would not show.
        net = dataclasses.replace(net, template=net.template.clone(padding="max"))
    vector = [c.before for c in columns if c.searched]
    projected = {r.site for r in net.layers(vector) if r.name.endswith("_shortcut")}
    found, concatenates = [], False
    for block, group in itertools.groupby(columns, key=lambda c: c.block):
        members = [c for c in group if c.searched]
        if not members:
            continue
        site = members[-1].layer.site
        if site in projected:
            found.append(Shortcut(block, True))
            continue
        try:
            one, two = (_next_inputs(net, vector, site, width) for width in (1, 2))
        except Exception:  # one's own module may refuse such widths in any way: nothing is known
            continue
        if one == two > 2:
            found.append(Shortcut(block, False))
        concatenates |= one > 1 and two == one + 1
    return found, concatenates


def _next_inputs(net: Network, vector: Sequence[int], site: int, width: int) -> int:
    """Input channels of the layer after a site of `width` channels."""
    rows = net.layers([width if i == site else c for i, c in enumerate(vector)])
    last = max(i for i, row in enumerate(rows) if row.site == site)
    return next(row.inputs for row in rows[last + 1 :] if row.height > 1 or row.dense)


def _wrap(columns: Sequence[Column]) -> list[list[Column]]:
    """Rows of about equal length, broken between blocks."""
    count = -(-len(columns) // MAX_COLUMNS)
    rows: list[list[Column]] = [[]]
    for _, group in itertools.groupby(columns, key=lambda c: c.block):
        block = list(group)
        due = sum(map(len, rows)) + len(block) / 2 > len(columns) * len(rows) / count
        if rows[-1] and (due or len(rows[-1]) + len(block) > MAX_COLUMNS):
            rows.append([])
        rows[-1] += block
    return rows


def _draw_row(
    ax: Axes,
    row: Sequence[Column],
    shortcuts: Sequence[Shortcut],
    widest: int,
    image_height: int,
) -> None:
    ax.axis("off")
    ax.plot((-0.75, len(row) - 0.35), (0, 0), color=INK, linewidth=0.8, zorder=1)

    for x, column in enumerate(row):
        _draw_bar(ax, x, column, widest)
    for line, text in enumerate(_TEXT_ROWS):
        ax.text(-1.7, _text_y(line), text, fontsize=6, color="#666666", va="center")
    named = {shortcut.block: shortcut for shortcut in shortcuts}
    start = 0
    for block, group in itertools.groupby(row, key=lambda c: c.block):
        members = list(group)
        end = start + len(members) - 1
        top = _bar_height(max(max(c.before, c.after) for c in members), widest) + 0.09
        if block in named:
            _draw_shortcut(ax, start, end, top, named[block].projection)
        x, label = (start + end) / 2, short_name(block)
        ax.text(x, top + 0.04, label, fontsize=6, ha="center", color="#555555")
        start = end + 1
    start = 0
    for size, group in itertools.groupby(row, key=lambda c: c.layer.height):
        end = start + len(list(group)) - 1
        _draw_resolution(ax, start, end, image_height / size)
        start = end + 1


def _bar_height(width: int, widest: int) -> float:
    return math.sqrt(width / widest)


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


def _legend(columns: Sequence[Column], shortcuts: Sequence[Shortcut]) -> list:
    colours = {c.colour for c in columns}
    handles: list = [
        Patch(facecolor=colour, label=label)
        for colour, label in (
            (WIDER, "wider"),
            (NARROWER, "narrower"),
            (NEUTRAL, "unchanged"),
            (_UNSEARCHED, "not searched"),
        )
        if colour in colours
    ]
    outline = {"facecolor": "none", "edgecolor": INK, "linestyle": (0, (2, 1.2)), "linewidth": 0.8}
    handles.append(Patch(label="before", **outline))
    if any(c.strided for c in columns):
        hatch = {"facecolor": NEUTRAL, "edgecolor": "white", "hatch": "/////", "linewidth": 0}
        handles.append(Patch(label="downsampling", **hatch))
    for projection, label in ((False, "shortcut"), (True, "projection")):
        if any(s.projection == projection for s in shortcuts):
            line = (0, (3, 1.5)) if projection else "-"
            handles.append(Line2D([], [], color=INK, linewidth=0.8, linestyle=line, label=label))
    return handles


def _title(net: Network, before: Sequence[int], after: Sequence[int]) -> str:
    macs, params = (
        " → ".join(f"{count(vector) / 1e6:.4g}" for vector in (before, after))
        for count in (net.macs, net.params)
    )
    return f"{net.name}: {macs} M multiply-accumulates, {params} M parameters"
