"""The figures of accuracy against each cost, of runs and of published networks."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from furs_jax.errors import ConfigError
from furs_jax.options.units import scale_of
from furs_jax.report.captions import shortened
from furs_jax.report.labels import place_labels
from furs_jax.report.palette import INK, NEUTRAL, SERIES
from furs_jax.report.run_record import NETWORK_ADJUSTMENT, RunRecord
from furs_jax.report.style import legend_text, mix, new_panels, style
from furs_jax.report.table4 import ORIGINAL, START, TRAINED, Row, comparison, method_title

# Of our networks: marker, its size, the line between budgets, the interval's width, order.
_OURS = {
    ORIGINAL: ("o", 6.5, "--", 3.0, 2.1),
    START: ("^", 5.5, ":", 1.8, 2.2),
    TRAINED: ("P", 5.0, "none", 0.8, 2.4),
    "": ("s", 3.2, "-", 0.8, 2.3),
}

OURS = method_title(NETWORK_ADJUSTMENT)


def draw_accuracy(runs: Sequence[RunRecord], published: bool = True, unit: str = "MACs") -> Figure:
    """Top-1 on the test split against a cost: original, start and searched network of every run.

    The unit is "MACs", "params" or that of the runs' own budgets.

    Each data set has a panel, with published figures of the same networks where there are any.

    Raises:
      ConfigError: no run has a final accuracy yet, or none a cost in the unit.
    """
    table = comparison(runs, published)
    known = [row for row in table.rows if row.top1 is not None and row.amount(unit)]
    ours = [row for row in known if not row.published]
    if not ours:
        raise ConfigError("no final training has ended yet")
    panels = list(dict.fromkeys(row.data for row in ours))
    families = list(dict.fromkeys(_family(row) for row in ours))
    colours = dict(zip(families, itertools.cycle(SERIES), strict=False))
    with style():
        figure, axes, columns = new_panels(len(panels), 3, (0.7, 2.2, 4.2))
        labels = []
        for ax, data in zip(axes, panels, strict=True):
            own = [row for row in known if row.data == data]
            labels.append(_draw_panel(ax, own, colours, unit))
            ax.set_title(shortened(data, (56, 44, 28)[columns - 1]), loc="left")
        axes[(len(panels) - 1) // columns // 2 * columns].set_ylabel("top-1 (%), ± 95 % interval")
        _accuracy_legend(figure, axes, colours)
        for ax, texts in zip(axes, labels, strict=True):
            place_labels(ax, *texts)
    return figure


def _family(row: Row) -> str:
    """The network without its width: what a line of several budgets has in common."""
    return row.network.removesuffix(_width(row))


def _width(row: Row) -> str:
    """ " 0.8x" or " at 3 MMACs", as `RunRecord.title` ends; nothing for the full width."""
    found = re.search(r" (\d[\d.e-]*x|at [\d.e+-]+ \D+)$", row.network)
    return found[0] if found else ""


def _draw_panel(
    ax: Axes, rows: Sequence[Row], colours: dict[str, str], unit: str
) -> tuple[list, list]:
    """Draws one data set; returns the labels and lines for `place_labels`."""
    labels, whiskers = [], []
    for (published, family, method, _), group in _grouped(rows):
        points = sorted(group, key=lambda row: row.amount(unit))
        x = [row.amount(unit) for row in points]
        y = [100 * row.top1.mean for row in points]
        # One seed gives no interval: NaN draws none.
        halves = [row.top1.half_width for row in points]
        errors = [float("nan") if half is None else 100 * half for half in halves]
        look = _look(published, method, colours[family])
        ax.errorbar(x, y, errors, **look)
        reach = np.nan_to_num(errors)
        whiskers += [((a, b - e), (a, b + e)) for a, b, e in zip(x, y, reach, strict=True)]
        for row, a, b in zip(points, x, y, strict=True):
            labels.append((a, b, _label(row, published)))
    low, high = (end(row.amount(unit) for row in rows) for end in (min, max))
    if high > 4 * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")  # no powers of ten, which are formulas
    elif high < 1.02 * low:  # one budget: not a thousandth of it over the whole width
        ax.set_xlim(0.97 * low, 1.03 * high)
    ax.margins(x=0.12, y=0.12)
    # Intervals of few seeds reach beyond what an accuracy can be.
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, 0), min(top, 100.5))
    ax.set_xlabel(scale_of(unit).axis + (" of one image" if unit == "MACs" else ""))
    ax.grid(axis="y", linewidth=0.3, color="#CCCCCC")
    return [label for label in labels if label[2]], whiskers


def _look(published: bool, method: str, colour: str) -> dict:
    """Marker, line, interval and legend of one method.

    A run's networks have about the same MACs: the original's interval is a wide pale bar, behind
    the thin one of the searched network.
    """
    original, ours = method == ORIGINAL, method == OURS
    look = {"mfc": "white" if method in (ORIGINAL, START) else None, "linestyle": "none"}
    if published:
        what = method if original or ours else "other methods"
        look |= {"color": INK if original or ours else NEUTRAL, "label": f"published, {what}"}
        return {**look, "marker": "D" if original or ours else "X", "ms": 4, "elinewidth": 0.8}
    marker, size, line, width, order = _OURS.get(method, _OURS[""])
    look |= {
        "color": colour,
        "label": legend_text(method),
        "linestyle": line,
        "marker": marker,
        "ms": size,
    }
    pale = mix(colour, 0.45 if width > 1 else 0)
    return {**look, "ecolor": pale, "elinewidth": width, "capsize": width + 1, "zorder": order}


def _label(row: Row, published: bool) -> str:
    """What the legend doesn't say: a published method's name, the width of ours."""
    if row.method in (ORIGINAL, START):
        return ""
    trained = [name for name, used in (("FT", row.ft), ("KD", row.kd)) if used]
    searched = row.method in (OURS, TRAINED)
    told = _width(row).lstrip() if searched and not published else ""
    return ", ".join(filter(None, [told if searched else row.method, *trained]))


def _grouped(rows: Sequence[Row]) -> list[tuple[tuple[bool, str, str, str], list[Row]]]:
    """Rows of one line: of a network and a method, at budgets in one unit."""
    groups: dict[tuple[bool, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.published, _family(row), row.method, row.unit), []).append(row)
    return list(groups.items())


def _accuracy_legend(figure: Figure, axes: Sequence[Axes], colours: dict[str, str]) -> None:
    handles = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            if not text.startswith("published"):
                colour = handle.lines[0].get_color()
                family = next(name for name, value in colours.items() if value == colour)
                text = legend_text(f"{shortened(family, 24)}, {text}")
            handles[text] = handle
    ordered = sorted(handles, key=lambda text: text.startswith("published"))
    figure.legend(
        [handles[text] for text in ordered],
        ordered,
        loc="outside lower center",
        ncols=2 if len(handles) > 1 and max(map(len, ordered)) < 50 else 1,
    )
