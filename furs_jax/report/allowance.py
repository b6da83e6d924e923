"""What a run's vectors may cost, as its files tell it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from furs_jax.options.units import scale_of
from furs_jax.run.text import printable

Record = dict[str, Any]


class Allowance(NamedTuple):
    """Budget and limits.

    Attributes:
      unit: of the budget: "MACs", "params" and so on.
      given: the budget where an option gave it, in words, "3 MMACs"; None where the width did.
      budget: of a search; None where nothing tells it yet.
      limits: resource -> what vectors may cost in it at most.
    """

    unit: str
    given: str | None
    budget: float | None
    limits: Mapping[str, float]


def allowance(begun: Record, result: Record | None, searches: bool) -> Allowance:
    """Of config.json and result.json."""
    config, told, result = begun["config"], begun.get("budget", {}), result or {}
    cost = config.get("cost", {})
    unit = printable(result.get("searched", {}).get("unit") or told.get("unit", "MACs"))
    given = config.get("flops_budget") or cost.get("budget")
    budget = result.get("budget", told.get("most"))
    if budget is None and not result and searches and cost.get("resource", "macs") == "macs":
        record = begun.get("network")  # of a run of an earlier version
        budget = given or (record["original"]["macs"] if record else None)
    scale = scale_of(unit)
    words = None if given is None else f"{given / scale.by:g} {scale.unit}"
    return Allowance(unit, words, budget, told.get("limits", {}))
