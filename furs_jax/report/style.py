"""How every figure looks, and how it is written: matplotlib without pyplot or global state."""

import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from furs_jax.report.captions import shortened
from furs_jax.report.palette import INK

PAPER_WIDTH = 7.1  # inches: the text of a two-column page

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "svg.hashsalt": "furs_jax",  # the same figure, the same file
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a $ in a name is a dollar
    "text.usetex": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draws in this style; the user's own settings stay as they are."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(height: float, width: float = PAPER_WIDTH) -> Figure:
    """An empty figure of so many inches; show it in a notebook or `save` it."""
    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def new_panels(
    count: int, most: int, sizes: tuple[float, float, float]
) -> tuple[Figure, np.ndarray, int]:
    """An empty figure of so many panels, at most `most` in a line.

    Args:
      sizes: inches: the height of what is no panel, that of a panel, the width of one alone.

    Returns:
      The figure, the panels' axes, and how many are in a line.
    """
    around, height, alone = sizes
    columns = min(most, count)
    lines = -(-count // columns)
    figure = new_figure(around + height * lines, alone if columns == 1 else PAPER_WIDTH)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.axis("off")
    return figure, axes[:count], columns


def save(figure: Figure, path: str | os.PathLike) -> list[pathlib.Path]:
    """Writes PATH.png (200 dpi) and PATH.svg; a suffix .png or .svg of `path` is dropped."""
    path = pathlib.Path(path)
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg"))
    with style():
        figure.savefig(png, dpi=200)
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def mix(colour: str, white: float) -> tuple[float, ...]:
    """The colour with so large a share of white."""
    return tuple(white + (1 - white) * part for part in to_rgb(colour))


def legend_text(text: str) -> str:
    """Text for a legend, which leaves out what begins with an underscore."""
    text = shortened(text, 60)
    return f" {text}" if text.startswith("_") else text
