"""Whether a run's files hold what a report reads of them: they may be somebody else's."""

import math
from collections.abc import Iterable
from typing import Any

from furs_jax.run.statistics import Interval

Record = dict[str, Any]
METRICS = ("top1", "top5")
NETWORKS = ("original", "start", "searched", "trained")  # that a result may have


def check_run(run: Any) -> None:
    """Raises ValueError, LookupError or TypeError where a `RunRecord` lacks what is read of it."""
    config, allowed, sites = run.config, run.allowance, None
    texts = (config["network"], config["data"]["name"])
    counts = (config["search"]["rounds"], config["final"]["seeds"])
    cost = (config.get("flops_budget"), config.get("cost", {}).get("budget"), allowed.budget)
    known = (n for n in (*cost, *allowed.limits.values()) if n is not None)
    sizes = (config["width_multiplier"], *known)
    _must(all(isinstance(text, str) for text in texts), "config.json", "a name")
    _must(_numbers([*counts, *sizes]), "config.json", "a number")
    _must(set(run.final_names()) <= set(NETWORKS), "config.json", "a final network's name")
    images = run.images or {"train": 1}
    _must(_numbers(images.values()) and images["train"] > 0, "config.json", "a number of images")
    if run.record is not None:
        sites = len(run.network.channels)
    for place, record in enumerate(run.rounds):
        where = f"rounds.jsonl, line {place + 1}"
        _must(record["round"] == place, where, "round")
        sites = sites or len(record["channels"])
        own = _count(run, record, sites)
        following = _count(run, record, sites, "next_")
        _must(_widths(record["channels"], own), where, "channels")
        _must(_widths(record["next_channels"], following), where, "next_channels")
        for key in ("furs", "furs_stderr"):
            values = record.get(key)
            _must(values is None or (_numbers(values) and len(values) == own), where, key)
        _must(record["furs"] is not None, where, "furs")
        _must(_numbers([record[k] for k in ("macs", "params", "next_macs")]), where, "a size")
        chosen = [*record["increased"], *record["decreased"]]
        _must(set(chosen) <= set(range(own)), where, "a site")
        _must(record.get("next_parent", place) in range(place + 1), where, "next_parent")
    for place, record in enumerate(run.finals):
        scores = [record[key] for key in METRICS]
        _must(record["network"] in NETWORKS and _numbers(scores), f"finals.jsonl, {place}", "")
    for name in NETWORKS if run.result is not None else ():
        if (entry := run.result.get(name)) is not None:
            count = _count(run, entry, sites or len(entry["channels"]))
            _must(_widths(entry["channels"], count), "result.json", name)
            seeds = [seed[key] for seed in entry["seeds"] for key in METRICS]
            bounds = [value for key in METRICS for value in Interval(*entry[key])]
            told = [entry["macs"], entry["params"], *seeds, *(b for b in bounds if b is not None)]
            _must(_numbers(told), "result.json", name)


def _count(run: Any, entry: Record, sites: int, prefix: str = "") -> int:
    """The sites of an entry's network: those of its blocks, where it tells how many there are."""
    depths, channels = (entry.get(f"{prefix}{key}") for key in ("depths", "channels"))
    if depths is None:
        return sites
    _must(_widths(depths, len(depths)) and sum(depths) <= len(channels), f"{prefix}depths", "")
    return len(run.site_names(depths))


def _must(holds: bool, file: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{file}: {what} can't be")


def _numbers(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _widths(values: Any, sites: int) -> bool:
    return len(values) == sites and all(type(c) is int and c > 0 for c in values)
