"""Labels of points that stay off the points and off each other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from furs_jax.report.style import INK

_FONT_SIZE = 6  # points
_DISTANCES = (4, 9, 15, 22, 30)  # points, from the point to its label
_ANGLES = np.radians((45, 135, -45, -135, 0, 180, 90, -90))


Point = tuple[float, float]


def place_labels(
    ax: Axes,
    labels: Sequence[tuple[float, float, str]],
    lines: Sequence[tuple[Point, Point]] = (),
) -> None:
    """Writes each text beside its point (x, y), at the first of several places that is free.

    Call it when the axes' limits and scales are set.

    Args:
      ax: where to write.
      labels: x, y in data coordinates, and text.
      lines: horizontal or vertical lines to stay off, from one point to another.
    """
    if not labels:
        return
    figure = ax.figure
    figure.draw_without_rendering()  # limits and layout are known from here on
    pixels = figure.dpi / 72
    points = ax.transData.transform([(x, y) for x, y, _ in labels])
    taken = [Bbox.from_extents(*(p - 2.5 * pixels), *(p + 2.5 * pixels)) for p in points]
    for ends in lines:
        low, high = np.sort(ax.transData.transform(ends), axis=0)
        taken.append(Bbox.from_extents(*(low - pixels / 2), *(high + pixels / 2)))
    frame = ax.get_window_extent()
    for (x, y, text), point in zip(labels, points, strict=True):
        size = np.array((0.62 * len(text), 1.15)) * _FONT_SIZE * pixels
        places = [
            (distance, angle, _box(point, size, distance * pixels, angle))
            for distance in _DISTANCES
            for angle in _ANGLES
        ]
        distance, angle, box = min(places, key=lambda place: _overlap(place[2], taken, frame))
        taken.append(box)
        offset = (distance * np.cos(angle), distance * np.sin(angle))
        far = distance > _DISTANCES[0]
        ax.annotate(
            text,
            (x, y),
            offset,
            textcoords="offset points",
            fontsize=_FONT_SIZE,
            color=INK,
            ha="left" if np.cos(angle) > 0.1 else "right" if np.cos(angle) < -0.1 else "center",
            va="bottom" if np.sin(angle) > 0.1 else "top" if np.sin(angle) < -0.1 else "center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": INK} if far else None,
        )


def _box(point: np.ndarray, size: np.ndarray, distance: float, angle: float) -> Bbox:
    """The label's box in pixels, on the side of the point that `angle` says."""
    direction = np.array((np.cos(angle), np.sin(angle)))
    side = np.where(np.abs(direction) < 0.1, 0, np.sign(direction))
    centre = point + distance * direction + side * size / 2
    return Bbox.from_extents(*(centre - size / 2), *(centre + size / 2))


def _overlap(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Area in pixels that is covered already, or lies outside the axes."""
    crossings = (Bbox.intersection(box, other) for other in taken)
    covered = sum(c.width * c.height for c in crossings if c is not None)
    inside = Bbox.intersection(box, frame)
    area = box.width * box.height
    return covered + area - (inside.width * inside.height if inside is not None else 0)
