"""Whether a gain could be seen at all: what MACs are worth on a task, beside its noise.

The network that a search begins with is trained uniformly narrower and wider. The search can't be
expected to gain what many more MACs would not give; and what differs less than seeds do can't be
seen. So few trainings tell, before any search, how good its network would have to be.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from furs_jax.bench.retrain import retrain, run_from_scratch
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.run.journal import Journal
from furs_jax.run.statistics import Interval, mean_interval, score_text
from furs_jax.run.tables import format_table
from furs_jax.widths.budget import fit_to_budget

SHARES = (0.75, 1.0, 1.333)  # of the budget


class Headroom(NamedTuple):
    """Top-1 (of 1) against MACs, and what seeds hide."""

    slope: Interval  # top-1 for a doubling of the MACs
    noise: float  # standard deviation between seeds


def bench(options: Options, workdir: str) -> None:
    """Trains the network at each of `SHARES` of its MACs and says what a comparison could see.

    Trainings are those of the comparison at a search's end (config.final), but of the train split
    and judged on the search split. The folder is a run's: headroom.jsonl has one line a training,
    result.json the outcome.

    Raises:
      ConfigError: fewer than two seeds, or weights are given.
      WorkdirError: the folder holds another run.
    """
    run_from_scratch("headroom", options, workdir, _measure, _table, seeds=2)


def _measure(run: Run) -> dict[str, Any]:
    journal = Journal(run.workdir.path / "headroom.jsonl")
    net = run.task.net
    for share in SHARES:
        budget = run.cost.budget(share * run.budget)
        channels = run.start
        if share != 1:  # the vector itself stays as it is, also where it isn't quite at the budget
            bounds = run.bounds._replace(min_channels=[1] * len(channels))
            channels = fit_to_budget(net, channels, budget, cost=run.cost, **bounds._asdict())
        recipe = run.options.final.train
        retrain(run, channels, recipe, journal, f"{share:.0%} of the MACs")
    records = journal.read()
    seeds = run.options.final.seeds
    found = headroom([r["macs"] for r in records], [r["search_top1"] for r in records])
    return {
        "network": net.name,
        "data": run.task.dataset.name,
        "seeds": seeds,
        "records": records,
        "slope": found.slope,
        "noise": found.noise,
    }


def headroom(macs: Sequence[float], top1: Sequence[float]) -> Headroom:
    """Fits top-1 = a + slope log2(MACs) to networks of a few sizes, several seeds each."""
    macs, top1 = np.asarray(macs, float), np.asarray(top1, float)
    fit = stats.linregress(np.log2(macs), top1)
    half = stats.t.ppf(0.975, len(macs) - 2) * fit.stderr
    groups = [top1[macs == size] for size in np.unique(macs)]
    variance = sum(np.sum((g - g.mean()) ** 2) for g in groups) / (len(macs) - len(groups))
    return Headroom(Interval(float(fit.slope), float(half)), float(np.sqrt(variance)))


def visible(noise: float, seeds: int) -> float:
    """The difference of two means of `seeds` seeds whose 95 % interval just leaves out zero."""
    return float(stats.t.ppf(0.975, 2 * seeds - 2) * noise * math.sqrt(2 / seeds))


def seeds_needed(noise: float, gain: float, most: int = 1000) -> int | None:
    """The fewest seeds that `gain` is visible with; None where `most` are too few."""
    return next((s for s in range(2, most + 1) if visible(noise, s) <= gain), None)


def verdict(found: Headroom, seeds: int) -> str:
    """What it means for a search, in words."""
    least = visible(found.noise, seeds)
    text = (
        f"Seeds differ by {100 * found.noise:.2f} points (standard deviation), so {seeds} seeds "
        f"against {seeds} show a difference from about {100 * least:.2f} points."
    )
    if found.slope.mean <= found.slope.half_width:
        return (
            f"{text} MACs make no difference that stands out of this, so don't expect one from "
            "moving them: train longer, take a smaller network or harder data, or more seeds."
        )
    doublings = least / found.slope.mean
    more = f"{100 * (2**doublings - 1):.0f}%" if doublings < 4 else "over 15 times"
    needed = seeds_needed(found.noise, found.slope.mean * math.log2(1.25))
    enough = f"{needed} seeds" if needed else "more than 1,000 seeds"
    return (
        f"{text} That is what {more} more MACs are worth: the searched network must be as good as "
        f"one so much larger. A gain worth 25% more MACs would show with {enough}."
    )


def _table(result: dict[str, Any]) -> str:
    rows = []
    for macs in sorted({r["macs"] for r in result["records"]}):
        scores = [r["search_top1"] for r in result["records"] if r["macs"] == macs]
        rows.append((f"{macs:,}", score_text(mean_interval(scores), scores)))
    found = Headroom(Interval(*result["slope"]), result["noise"])
    return (
        f"{format_table(('MACs', 'top-1 % on the search split'), rows)}\n"
        f"{result['network']}, {result['data']}, {result['seeds']} seeds each; "
        f"{found.slope.format(sign=True)} points for a doubling of the MACs (95 %).\n"
        f"{verdict(found, result['seeds'])}"
    )
