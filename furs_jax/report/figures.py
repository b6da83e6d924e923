"""Figures of sites: FURs and channels over rounds, two estimates of FURs."""

import itertools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from furs_jax.errors import ConfigError
from furs_jax.options.units import per, scale_of
from furs_jax.report.captions import short_names, site_label
from furs_jax.report.changes import CHANGES, site_changes
from furs_jax.report.labels import place_labels
from furs_jax.report.palette import INK, NARROWER, NEUTRAL, WIDER
from furs_jax.report.run_record import RunRecord
from furs_jax.report.style import new_figure, save, style

# Of each of `CHANGES`: a colour, a marker, and whether the marker is filled.
_LOOKS = (
    (WIDER, "^", True),
    (NARROWER, "v", True),
    (WIDER, "^", False),
    (NARROWER, "v", False),
    (NEUTRAL, "o", True),
    (NEUTRAL, "o", False),
    (NARROWER, "x", True),
)
_FEW_SITES = 36  # up to here each has room for a name


def draw_furs(run: RunRecord) -> Figure:
    """Every site's FUR in every round, with standard errors, and what became of the site.

    Raises:
      ConfigError: no round has ended.
    """
    rounds, names = _rounds(run), short_names(run.every_site)
    scale = scale_of(run.allowance.unit)
    per_row = 1 if len(names) > _FEW_SITES else 2 if len(names) > 13 else 5
    per_row = min(per_row, len(rounds))
    lines = -(-len(rounds) // per_row)
    with style():
        room = 0.05 * max(max(map(len, names)) - 9, 0)  # inches, for names below the panels
        figure = new_figure(0.85 + room + (1.15 if per_row < 5 else 1.5) * lines)
        axes = figure.subplots(lines, per_row, squeeze=False, sharex=True, sharey=True)
        for ax, record in itertools.zip_longest(axes.flat, rounds):
            if record is None:
                ax.axis("off")
            else:
                _draw_round(ax, record, scale.by)
        # The lowest panel of each column has the names, also where the last line is not full.
        for column in range(per_row):
            last = [ax for ax in axes[:, column] if ax.axison][-1]
            _name_sites(last, names)
            last.tick_params(labelbottom=True)
        metric = run.config.get("furs", {}).get("metric", "loss")
        figure.supylabel(f"FUR ({metric} per {per(run.allowance.unit)})", fontsize=7.5)
        figure.supxlabel(f"{site_label(names)}; bars are standard errors", fontsize=7.5)
        found = {
            text: handle
            for ax in axes.flat
            for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        handles = {text: found[text] for text in CHANGES if text in found}
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=3)
    return figure


def _draw_round(ax: Axes, record: dict, scale: float) -> None:
    furs = scale * np.asarray(record["furs"])
    errors = record.get("furs_stderr")
    errors = np.zeros_like(furs) if errors is None else scale * np.asarray(errors)
    changes = zip(CHANGES, _LOOKS, site_changes(record), strict=True)
    for label, (colour, marker, filled), sites in changes:
        if sites:
            bars = {"fmt": marker, "color": colour, "ms": 3, "elinewidth": 0.8, "capsize": 1.5}
            face = colour if filled else "white"
            ax.errorbar(sites, furs[sites], errors[sites], label=label, mfc=face, **bars)
    ax.axhline(0, color=INK, linewidth=0.4, zorder=0)
    parent = record.get("next_parent", record["round"])
    back = f", then back to {parent + 1}" if parent != record["round"] else ""
    ax.set_title(f"round {record['round'] + 1}{back}", loc="left", pad=2)
    ax.set_xlim(-0.7, len(furs) - 0.3)


def _name_sites(ax: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // _FEW_SITES)
    ticks = range(0, len(names), every)
    ax.set_xticks(ticks, [names[i] for i in ticks], rotation=90, fontsize=6)


def draw_channels(run: RunRecord) -> Figure:
    """Every site's channels after every round; colours show the change from the start.

    Raises:
      ConfigError: no round has ended.
    """
    rounds, names = _rounds(run), short_names(run.every_site)
    vectors = np.array([rounds[0]["channels"], *(r["next_channels"] for r in rounds)]).T
    # A site that comes later is compared with its first width; where it is not there nothing is.
    first = vectors[np.arange(len(vectors)), np.argmax(vectors > 0, axis=1)][:, None]
    change = np.log2(np.where(vectors > 0, vectors / first, np.nan))
    limit = max(float(np.nanmax(np.abs(change))), 0.75)  # small changes stay pale
    few = len(names) <= 60
    with style():
        height = 0.155 * len(names) if few else 0.075 * len(names)
        figure = new_figure(0.9 + height, min(7.1, 1.6 + 0.42 * vectors.shape[1]))
        ax = figure.subplots()
        norm = TwoSlopeNorm(0, -limit, limit)
        image = ax.imshow(change, cmap="RdBu_r", norm=norm, aspect="auto")
        if few:
            for (site, place), width in np.ndenumerate(vectors):
                if not width:
                    continue
                dark = abs(change[site, place]) > 0.65 * limit
                colour = "white" if dark else INK
                ax.text(place, site, width, ha="center", va="center", fontsize=6, color=colour)
        every = 1 if few else 2
        ax.set_yticks(range(0, len(names), every), names[::every], fontsize=6 if few else 5)
        last = vectors.shape[1] - 1
        ax.set_xticks(range(last + 1), ["start", *map(str, range(1, last + 1))])
        ax.set(xlabel=_after_round(run), ylabel=site_label(names))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=ax, aspect=40, pad=0.02)
        ticks = [t for t in (-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4) if abs(t) <= limit]
        bar.set_ticks(ticks, labels=[f"{2**t:.2g}x" for t in ticks])
        bar.set_label("channels, of the start's")
        bar.outline.set_visible(False)
    return figure


def _after_round(run: RunRecord) -> str:
    """What the columns are, and which one was searched where it is not the last."""
    columns = [run.rounds[0]["channels"], *(r["next_channels"] for r in run.rounds)]
    if run.channels == columns[-1] or run.channels not in columns:
        return "after round"
    place = columns.index(run.channels)
    return f"after round; searched: {f'after {place}' if place else 'the start'}"


def compare_furs(
    path: str | os.PathLike,
    x: Sequence[float],
    x_stderr: Sequence[float] | None,
    y: Sequence[float],
    y_stderr: Sequence[float] | None,
    names: Sequence[str],
    x_label: str,
    y_label: str,
) -> list[pathlib.Path]:
    """Draws one estimate of the FURs against another, one point per site, and writes it.

    Args:
      path: of the files, as for `save`.
      x, y: FURs, one per site.
      x_stderr, y_stderr: their standard errors, or None.
      names: of the sites.
      x_label, y_label: what the two estimates are.

    Returns:
      The files' paths.
    """
    x, y = np.asarray(x), np.asarray(y)
    errors = [np.zeros_like(x) if e is None else np.asarray(e) for e in (x_stderr, y_stderr)]
    with style():
        figure = new_figure(3.6, 3.9)
        ax = figure.subplots()
        bars = {"fmt": "o", "color": NARROWER, "ecolor": NEUTRAL, "ms": 3.2, "elinewidth": 0.7}
        ax.errorbar(x, y, errors[1], errors[0], capsize=1.5, **bars)
        low, high = (f(np.concatenate((x, y))) for f in (np.min, np.max))
        ax.axline((low, low), (high, high), color=INK, linewidth=0.5, linestyle=":", zorder=0)
        ax.set(xlabel=x_label, ylabel=y_label)
        ax.ticklabel_format(scilimits=(-2, 3))
        ax.margins(0.08)
        whiskers = [
            ((a - dx, b - dy), (a + dx, b + dy))
            for a, b, u, v in zip(x, y, *errors, strict=True)
            for dx, dy in ((u, 0), (0, v))
        ]
        place_labels(ax, list(zip(x, y, short_names(names), strict=True)), whiskers)
    return save(figure, path)


def _rounds(run: RunRecord) -> list[dict]:
    if not run.rounds:
        raise ConfigError("no round has ended yet")
    return run.grid
