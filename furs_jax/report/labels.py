"""Labels of points that stay off the points and off each other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from furs_jax.report.palette import INK

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

    Call it last, when the axes' limits, scales and place are settled.

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
    ends = np.sort(ax.transData.transform(np.reshape(lines, (-1, 2))).reshape(-1, 2, 2), axis=1)
    # Boxes (x0, y0, x1, y1) in pixels of what must not be covered: points, lines, labels so far.
    taken = np.concatenate(
        [
            np.hstack((points - 2.5 * pixels, points + 2.5 * pixels)),
            np.hstack((ends[:, 0] - pixels / 2, ends[:, 1] + pixels / 2)),
        ]
    )
    frame = ax.get_window_extent().extents
    places = [(distance, angle) for distance in _DISTANCES for angle in _ANGLES]
    # A label far off is worse than one that touches a line.
    remote = np.array([distance for distance, _ in places]) * pixels**2
    for (x, y, text), point in zip(labels, points, strict=True):
        size = np.array((0.62 * len(text), 1.15)) * _FONT_SIZE * pixels
        boxes = np.array([_box(point, size, d * pixels, angle) for d, angle in places])
        outside = np.prod(size) - _overlaps(boxes, frame[None])[:, 0]
        best = int(np.argmin(_overlaps(boxes, taken).sum(axis=1) + outside + remote))
        taken = np.concatenate([taken, boxes[best : best + 1]])
        _write(ax, (x, y), text, *places[best])


def _write(ax: Axes, point: Point, text: str, distance: float, angle: float) -> None:
    right, up = np.cos(angle), np.sin(angle)
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": INK, "shrinkA": 0, "shrinkB": 2}
    annotation = ax.annotate(
        text,
        point,
        (distance * right, distance * up),
        textcoords="offset points",
        fontsize=_FONT_SIZE,
        color=INK,
        ha="left" if right > 0.1 else "right" if right < -0.1 else "center",
        va="bottom" if up > 0.1 else "top" if up < -0.1 else "center",
        arrowprops=line if distance > _DISTANCES[0] else None,
    )
    annotation.set_in_layout(False)  # else the axes would shrink and move the points


def _box(point: np.ndarray, size: np.ndarray, distance: float, angle: float) -> np.ndarray:
    """The label's box in pixels, on the side of the point that `angle` says."""
    direction = np.array((np.cos(angle), np.sin(angle)))
    side = np.where(np.abs(direction) < 0.1, 0, np.sign(direction))
    centre = point + distance * direction + side * size / 2
    return np.concatenate((centre - size / 2, centre + size / 2))


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area in pixels that boxes a (N, 4) and b (M, 4) share, shape (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)
