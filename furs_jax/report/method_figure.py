"""The figure of methods compared: accuracy against MACs, a line for each."""

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from furs_jax.errors import ConfigError
from furs_jax.report.captions import shortened
from furs_jax.report.method_table import UNIFORM, MethodRow, compare_methods
from furs_jax.report.palette import INK, SERIES
from furs_jax.report.run_record import RunRecord
from furs_jax.report.style import legend_text, new_panels, style
from furs_jax.report.table4 import method_title

_UNIFORM = method_title(UNIFORM)
_APART = 0.006  # of the axis, between methods at one budget, whose intervals would hide each other


def draw_methods(runs: Sequence[RunRecord]) -> Figure:
    """Top-1 on the test split against MACs, a panel for each network and data set, KD apart.

    MACs of a network that only could skip some are those that it could not.

    Raises:
      ConfigError: no search has ended.
    """
    rows = compare_methods(runs).rows
    if not rows:
        raise ConfigError("no search has ended")
    panels = list(dict.fromkeys((row.data, row.network, row.kd) for row in rows))
    looks = _looks(rows)
    with style():
        figure, axes, columns = new_panels(len(panels), 2, (0.9, 2.6, 4.6))
        handles: dict[str, Artist] = {}
        for ax, panel in zip(axes, panels, strict=True):
            own = [row for row in rows if (row.data, row.network, row.kd) == panel]
            handles |= _draw_panel(ax, own, looks)
            data, network, kd = panel
            title = f"{network} on {data}{', with KD' if kd else ''}"
            ax.set_title(shortened(title, 56 if columns == 1 else 44), loc="left")
        axes[0].set_ylabel("top-1 (%), ± 95 % interval")
        ordered = [name for name in map(_name, looks) if name in handles]
        figure.legend(
            [handles[name] for name in ordered], ordered, loc="outside lower center", ncols=5
        )
    return figure


_Series = tuple[str, bool]  # a method, and whether it began with trained weights


def _looks(rows: Sequence[MethodRow]) -> dict[_Series, dict[str, Any]]:
    """Of each line: a colour and a marker for a method, dashes for fine-tuning."""
    series = sorted({(row.method, row.ft) for row in rows})
    others = list(dict.fromkeys(method for method, _ in series if method != _UNIFORM))
    colours = dict(zip(others, itertools.cycle(SERIES), strict=False)) | {_UNIFORM: INK}
    markers = dict(zip(others, itertools.cycle("osD^vPX"), strict=False)) | {_UNIFORM: "_"}
    return {
        (method, ft): {
            "color": colours[method],
            "marker": markers[method],
            "mfc": "white" if ft else None,
            "linestyle": "--" if ft else "-",
            "zorder": 2.5 if method == _UNIFORM else 2,
        }
        for method, ft in series
    }


def _name(series: _Series) -> str:
    method, ft = series
    return legend_text(f"{method}, FT" if ft else method)


def _draw_panel(
    ax: Axes, rows: Sequence[MethodRow], looks: dict[_Series, dict[str, Any]]
) -> dict[str, Artist]:
    """Draws one network's rows; returns what a legend shows of each line."""
    macs = [_macs(row) for row in rows]
    span = max(macs) - min(macs) or max(macs)
    handles = {}
    for place, (series, look) in enumerate(looks.items()):
        points = sorted((row for row in rows if (row.method, row.ft) == series), key=_macs)
        if not points:
            continue
        shift = (place - (len(looks) - 1) / 2) * _APART * span
        # One seed gives no interval: NaN draws none.
        halves = [row.top1.half_width for row in points]
        handles[_name(series)] = ax.errorbar(
            [_macs(row) + shift for row in points],
            [100 * row.top1.mean for row in points],
            [float("nan") if half is None else 100 * half for half in halves],
            **look,
            ms=4,
            elinewidth=0.7,
            capsize=1.5,
        )
    if max(macs) < 1.02 * min(macs):  # one budget: not a thousandth of it over the whole width
        ax.set_xlim(0.9 * min(macs), 1.1 * max(macs))
    ax.set_xlabel("million MACs of one image, of a budget side by side")
    ax.grid(axis="y", linewidth=0.3, color="#CCCCCC")
    return handles


def _macs(row: MethodRow) -> float:
    """Millions."""
    return row.macs_m if row.theoretical_macs_m is None else row.theoretical_macs_m
