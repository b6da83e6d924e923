"""How amounts of a resource are written: MACs, parameters, bytes, milliseconds."""

import decimal
import math
from typing import NamedTuple


class Scale(NamedTuple):
    """How amounts of a unit are shown."""

    by: float  # what they are divided by
    unit: str  # of what is left
    axis: str


def scale_of(unit: str) -> Scale:
    """Millions of what there are many of: "3 MMACs", on an axis of "million MACs"."""
    known = {
        "MACs": Scale(1e6, "MMACs", "million MACs"),
        "params": Scale(1e6, "M params", "million parameters"),
        "bytes": Scale(1e6, "MB", "MB of activations"),
    }
    return known.get(unit, Scale(1.0, unit, unit))


def per(unit: str) -> str:
    """What a FUR is shown per: "MMAC", "M params"."""
    return "MMAC" if unit == "MACs" else scale_of(unit).unit


def amount(cost: float) -> str:
    """A cost: every digit of a whole number, five of another, or all before its point."""
    whole = isinstance(cost, int) or (cost == round(cost) and abs(cost) < 2**53)
    return f"{round(cost):,}" if whole or 1e5 <= abs(cost) < 2**53 else f"{cost:,.5g}"


def enough(cost: float) -> str:
    """As `amount`, to be given as an option: no less than the cost, without commas."""
    if cost == round(cost) or cost >= 1e5:
        return str(math.ceil(cost))
    rounding = decimal.Context(prec=5, rounding=decimal.ROUND_CEILING)
    return f"{rounding.create_decimal(repr(float(cost))):f}"
