"""Small charts as inline SVG, drawn without matplotlib; page.css has their colours.

A chart is as wide as a phone, so that its text is read there and several stand side by side
elsewhere.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from furs_jax.report.markup import Markup, element

# Classes of page.css
NETWORK_STYLES = {"original": "two", "start": "three", "searched": "one", "trained": "one"}
WIDTH, HEIGHT = 340, 210  # of a chart, in pixels of the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 8, 34
_LETTER = 6.2  # pixels, of a label's letter


class Curve(NamedTuple):
    """A line of a chart; its name and style are shown in a legend beside the chart."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str  # a class of page.css


class Mark(NamedTuple):
    """A point with an error bar."""

    x: float
    y: float
    error: float  # half the bar
    style: str
    told: str  # shown when the pointer rests on it


class Plane(NamedTuple):
    """The ranges that a chart shows, and how high it is."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = WIDTH
    height: int = HEIGHT
    bottom: int = _BOTTOM

    def across(self, value: float) -> float:
        low, high = self.x
        return _LEFT + (value - low) / (high - low) * (self.width - _LEFT - _RIGHT)

    def up(self, value: float) -> float:
        low, high = self.y
        place = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.height - self.bottom - place * (self.height - self.bottom - _TOP)


def span(values: Iterable[float], margin: float = 0.06, least: float = 1e-9) -> tuple[float, float]:
    """A range with room on both sides, for finite numbers of which there may be one."""
    values = list(values)
    low, high = min(values), max(values)
    room = max(margin * (high - low), least, 1e-6 * max(abs(low), abs(high)))
    return low - room, high + room


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a range, at most so many and two at least where there are."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A value in four digits."""
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")


def tick_labels(places: Sequence[float]) -> list[str]:
    """With as few digits as show round numbers as they are, and tell neighbours apart."""
    step = places[1] - places[0] if len(places) > 1 else 1.0
    if 1e-6 < step < 1e6:
        digits = next(d for d in range(9) if all(abs(round(x, d) - x) < step / 50 for x in places))
        return [f"{place:.{digits}f}" for place in places]
    labels: list[str] = []
    for digits in range(3, 17):
        labels = [f"{place:.{digits}g}" for place in places]
        if len(set(labels)) == len(places):
            break
    return labels


def line_chart(curves: Sequence[Curve], x_label: str, y_label: str) -> Markup:
    """Curves over whole numbers, such as epochs."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    plane = Plane(span(xs, 0.02, 0.5 if len(set(xs)) < 2 else 0.01), span(ys, least=1e-3))
    whole = [t for t in ticks(*plane.x) if t == int(t)]
    lines = [
        element("polyline", points=_points(plane, c.points), class_=f"curve {c.style}")
        if len(c.points) > 1
        else _dot(plane, Mark(*c.points[0], 0.0, c.style, c.name))
        for c in curves
    ]
    labels = [(t, number(t)) for t in whole]
    return _chart(plane, [lines], labels, x_label, y_label)


def mark_chart(
    marks: Sequence[Mark],
    labels: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
    y: tuple[float, float] | None = None,
    level: float | None = None,
) -> Markup:
    """Points with error bars at named places.

    Args:
      marks: the points.
      labels: names of places on the x axis.
      x_label, y_label: of the axes.
      y: the range to show; by default what the points need.
      level: where a horizontal line is drawn.
    """
    reach = [v for m in marks for v in (m.y - m.error, m.y + m.error)]
    reach += [] if level is None else [level]
    upright = sum(len(text) + 1.5 for _, text in labels) * _LETTER > WIDTH - _LEFT
    longest = max((len(text) for _, text in labels), default=0)
    bottom = _BOTTOM + int(min(longest, 14) * _LETTER) - 6 if upright else _BOTTOM
    places = [x for x, _ in labels] or [m.x for m in marks]
    height = HEIGHT + bottom - _BOTTOM
    plane = Plane((min(places) - 0.7, max(places) + 0.7), y or span(reach), WIDTH, height, bottom)
    drawn = [_bar(plane, m) for m in marks if m.error] + [_dot(plane, m) for m in marks]
    if level is not None:
        drawn.insert(0, _line(_LEFT, plane.up(level), WIDTH - _RIGHT, plane.up(level), "level"))
    every = -(-len(labels) // (26 if upright else len(labels) or 1))
    return _chart(plane, drawn, labels[::every], x_label, y_label, upright)


def _points(plane: Plane, points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{plane.across(x):.1f},{plane.up(y):.1f}" for x, y in points)


def _dot(plane: Plane, mark: Mark) -> Markup:
    x, y = f"{plane.across(mark.x):.1f}", f"{plane.up(mark.y):.1f}"
    return element(
        "circle", element("title", mark.told), cx=x, cy=y, r=3.2, class_=f"dot {mark.style}"
    )


def _bar(plane: Plane, mark: Mark) -> Markup:
    x = plane.across(mark.x)
    low, high = (plane.up(mark.y + side * mark.error) for side in (-1, 1))
    return _line(x, low, x, high, f"bar {mark.style}")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", class_=style, **{name: f"{v:.1f}" for name, v in places.items()})


def _chart(
    plane: Plane,
    drawn: Sequence,
    labels: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
    upright: bool = False,
) -> Markup:
    """What is drawn, within axes."""
    base, right = plane.height - plane.bottom, plane.width - _RIGHT
    parts = []
    places = ticks(*plane.y)
    for tick, label in zip(places, tick_labels(places), strict=True):
        y = plane.up(tick)
        parts.append(_line(_LEFT, y, right, y, "rule"))
        parts.append(_text(_LEFT - 5, y + 4, label, "end"))
    parts.append(_line(_LEFT, base, right, base, "axis"))
    for place, text in labels:
        x = plane.across(place)
        parts.append(_upright(x + 4, base + 5, text) if upright else _text(x, base + 14, text))
    parts.append(_text((_LEFT + right) / 2, plane.height - 4, x_label))
    middle = (_TOP + base) / 2
    turned = f"rotate(-90 11 {middle:.0f})"
    parts.append(_text(11, middle, y_label, "middle", transform=turned))
    size = f"0 0 {plane.width} {plane.height}"
    told = f"{y_label} by {x_label}"
    return element("svg", *parts, *drawn, viewBox=size, role="img", aria_label=told)


def _text(x: float, y: float, text: str, anchor: str = "middle", **more: str) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, **more)


def _upright(x: float, y: float, text: str) -> Markup:
    return _text(x, y, text, "end", transform=f"rotate(-90 {x:.1f} {y:.1f})")


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """Names with the styles that curves or points have."""
    items = [element("span", element("i", class_=f"key {style}"), name) for name, style in entries]
    return element("p", *items, class_="legend")
