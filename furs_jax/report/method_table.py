"""Methods compared: runs of one task at several budgets, each beside uniform widths at its own."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from furs_jax.report.run_record import METRICS, RunRecord
from furs_jax.report.table4 import csv_lines, is_distilled, is_fine_tuned, method_title
from furs_jax.run.statistics import FEWEST_SEEDS, Interval, difference_interval, score_text, shown
from furs_jax.run.text import markdown

UNIFORM = "uniform"
_FOUND = "searched"


class MethodRow(NamedTuple):
    """What one method found at one budget."""

    data: str
    network: str
    method: str
    ft: bool  # begun with trained weights
    kd: bool  # trained with distillation
    budget_m: float  # millions of the unit
    unit: str  # of the budget
    macs_m: float  # millions, of one image
    theoretical_macs_m: float | None  # of a network that could skip what it knows to be zero
    params_m: float
    top1: Interval  # of the test split, a fraction
    uniform_difference: Interval | None  # of top-1; None without such a run
    seeds: int
    search_macs_g: float  # 10^9 MACs that trainings spent on finding the widths
    search_s: float | None  # wall time of that; None in runs of earlier versions
    training_macs_g: float  # 10^9 MACs of one final training
    training_s: float | None
    top1_seeds: tuple[float, ...]


class MethodTable(NamedTuple):
    """Rows and the notes below them."""

    rows: tuple[MethodRow, ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """A GitHub table; accuracies and differences in per cent."""
        header = ("network", "budget (M)", "method", "FT", "KD", "top-1 %", "to uniform")
        header += ("MACs (M)", "parameters (M)", "found in", "trained in")
        align = ("---", "---:", "---", ":-:", ":-:", *("---:" for _ in range(6)))
        cells = [map(markdown, _cells(row)) for row in self.rows]
        lines = ["| " + " | ".join(cells) + " |" for cells in (header, align, *cells)]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """The same figures as fractions and numbers, with half widths of 95 % intervals."""
        return csv_lines(MethodRow, self.rows, ("top1", "uniform_difference"))


def are_methods(runs: Sequence[RunRecord]) -> bool:
    """Whether there is more than one method to compare."""
    return len({run.method for run in runs if run.searches}) > 1


def compare_methods(runs: Sequence[RunRecord]) -> MethodTable:
    """A row for each finished search; those of a budget stand together, uniform widths first."""
    searches = [run for run in runs if run.searches]
    done = [run for run in searches if run.result is not None]
    rows = [_row(run, _uniform(run, done)) for run in done]
    rows.sort(key=lambda row: (row.data, row.network, -row.budget_m, row.kd, *_order(row)))
    notes = [
        "Differences are to uniform widths at the same budget, trained alike and by as many "
        "seeds; ± is a 95 % confidence interval over seeds, and of fewer than "
        f"{FEWEST_SEEDS} every seed is shown. MACs are of one image; what found and trained a "
        "network is in 10^9 MACs of its trainings, and in seconds of this run.",
    ]
    if any(row.theoretical_macs_m is not None for row in rows):
        notes.append("† theoretical: of what could be skipped; dense hardware computes all of it.")
    if len(done) < len(searches):
        notes.append(f"{len(done)} of {len(searches)} searches have ended.")
    return MethodTable(tuple(rows), tuple(notes))


def _order(row: MethodRow) -> tuple:
    return (row.method != method_title(UNIFORM), row.method, row.ft)


def _uniform(run: RunRecord, runs: Iterable[RunRecord]) -> RunRecord | None:
    """The run of uniform widths that is trained and tested as this one, at its budget."""
    if run.method == UNIFORM:
        return None
    found = (r for r in runs if r.method == UNIFORM and _terms(r, run) == _terms(run, run))
    return next(found, None)


def _terms(run: RunRecord, judged: RunRecord) -> str:
    """What has to be equal for a fair comparison with `judged`."""
    config = run.config
    terms = {key: config.get(key) for key in ("data", "network", "padding", "cost", "kd", "seed")}
    final = dict(config["final"])
    final.pop("original", None)
    if is_fine_tuned(judged, _FOUND):  # a recipe for trained weights is another one
        final.pop("train")
    return json.dumps([terms, final, run.result["budget"]], sort_keys=True)


def _row(run: RunRecord, uniform: RunRecord | None) -> MethodRow:
    result, entry = run.result, run.networks()[_FOUND]
    seconds = result.get("seconds", {})
    theoretical = entry.get("theoretical_macs")
    return MethodRow(
        data=run.data,
        network=run.title.partition(" ")[0],
        method=method_title(run.method),
        ft=is_fine_tuned(run, _FOUND),
        kd=is_distilled(run.config, _FOUND),
        budget_m=result["budget"] / 1e6,
        unit=run.allowance.unit,
        macs_m=entry["macs"] / 1e6,
        theoretical_macs_m=None if theoretical is None else theoretical / 1e6,
        params_m=entry["params"] / 1e6,
        top1=entry["top1"],
        uniform_difference=None if uniform is None else _difference(run, uniform),
        seeds=len(entry["seeds"]),
        search_macs_g=result["search_macs"] / 1e9,
        search_s=seconds.get("search"),
        training_macs_g=result["final_macs"] / 1e9,
        training_s=seconds.get("final"),
        top1_seeds=tuple(seed["top1"] for seed in entry["seeds"]),
    )


def _difference(run: RunRecord, uniform: RunRecord) -> Interval:
    key = METRICS[0]
    scores = [[seed[key] for seed in r.result[_FOUND]["seeds"]] for r in (run, uniform)]
    return shown(difference_interval(*scores), min(map(len, scores)))


def _cells(row: MethodRow) -> tuple[Any, ...]:
    def spent(macs: float, seconds: float | None) -> str:
        if macs == 0:
            return "—"
        return f"{macs:,.4g} G" + ("" if seconds is None else f", {seconds:,.0f} s")

    theoretical = row.theoretical_macs_m
    return (
        row.network,
        f"{row.budget_m:.4g}" + ("" if row.unit == "MACs" else f" {row.unit}"),
        row.method,
        "✓" if row.ft else "",
        "✓" if row.kd else "",
        score_text(row.top1, row.top1_seeds),
        "" if row.uniform_difference is None else row.uniform_difference.format(sign=True),
        f"{row.macs_m:.4g}" if theoretical is None else f"{theoretical:.4g}† of {row.macs_m:.4g}",
        f"{row.params_m:.3g}",
        spent(row.search_macs_g, row.search_s),
        spent(row.training_macs_g, row.training_s),
    )
