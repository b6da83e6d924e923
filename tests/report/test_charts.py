"""Axes of the page's charts."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from furs_jax.report.charts import (
    HEIGHT,
    WIDTH,
    Curve,
    Mark,
    line_chart,
    mark_chart,
    span,
    tick_labels,
    ticks,
)

numbers = st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=20))
def test_ticks_are_round_in_range_and_told_apart(values):
    low, high = span(values)
    assert low < min(values) <= max(values) < high
    found = ticks(low, high)
    assert all(low - 1e-6 * abs(low) <= tick <= high + 1e-6 * abs(high) for tick in found)
    assert len(found) <= 6
    if high - low > 1e-4 * max(abs(low), abs(high)):
        assert len(found) >= 2
        assert len(set(tick_labels(found))) == len(found)


def test_neighbours_of_a_narrow_range_have_other_labels():
    """Figures within a thousandth of a budget, of which four digits show one number."""
    found = ticks(0.41034, 0.41044)
    assert len(set(tick_labels(found))) == len(found) >= 2


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=12), st.floats(0, 1e6))
def test_what_is_drawn_lies_within_the_chart(values, error):
    points = list(enumerate(values))
    marks = [Mark(x, y, error, "one", "") for x, y in points]
    charts = [line_chart([Curve("a", points, "one")], "x", "y")]
    charts.append(mark_chart(marks, [(x, str(x)) for x, _ in points], "x", "y"))
    for chart in charts:
        places = re.findall(r' (x|cx|x1|x2|y|cy|y1|y2)="([^"]*)"', chart)
        assert all(0 <= float(at) <= (WIDTH if "x" in name else HEIGHT) for name, at in places)
        for x, y in re.findall(
            r"([-\d.]+),([-\d.]+)", "".join(re.findall('points="(.*?)"', chart))
        ):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT


def test_names_that_do_not_fit_stand_upright():
    marks = [Mark(x, x, 0.0, "one", "") for x in range(30)]
    few = mark_chart(marks[:2], [(x, "a") for x in range(2)], "x", "y")
    many = mark_chart(marks, [(x, f"stage{x}") for x in range(30)], "x", "y")
    assert few.count("rotate(-90") == 1  # of the axis
    assert many.count("rotate(-90") == 1 + 15  # every second name
