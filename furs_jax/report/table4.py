"""Table 4 of Chen et al., CVPR 2020, of runs, with the published rows beside them."""

import csv
import dataclasses
import functools
import importlib.resources
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from furs_jax.options.units import scale_of
from furs_jax.report.run_record import NETWORK_ADJUSTMENT, RunRecord
from furs_jax.run.statistics import FEWEST_SEEDS, Interval, score_text
from furs_jax.run.text import csv_text, markdown

ORIGINAL = "original"
START = "start"  # of a search from other widths
TRAINED = "trained"  # mode=train


class Row(NamedTuple):
    """One network of the table; None is not known, or not said by the source."""

    data: str
    network: str
    method: str  # "original", "start", "trained", or how it was searched or pruned
    ft: bool  # fine-tuned from trained weights
    kd: bool  # trained with distillation
    top1: Interval | None  # of the test split, a fraction
    top1_difference: Interval | None
    top5: Interval | None
    top5_difference: Interval | None
    macs_m: float | None  # millions
    params_m: float | None  # millions
    source: str
    cost: float | None = None  # of another resource that the run's budget is counted in
    unit: str = "MACs"  # of the budget
    top1_seeds: tuple[float, ...] = ()
    top5_seeds: tuple[float, ...] = ()

    @property
    def published(self) -> bool:
        return self.source.startswith("published")

    def amount(self, unit: str) -> float | None:
        """What it costs in a unit, as `scale_of` shows it; None is not known."""
        if unit in ("MACs", "params"):
            return self.macs_m if unit == "MACs" else self.params_m
        return self.cost / scale_of(unit).by if unit == self.unit and self.cost else None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows and the notes below them."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """A GitHub table; accuracies in per cent, differences in brackets."""
        header = ("network", "method", "FT", "KD", "top-1 % (difference)", "top-5 % (difference)")
        header += ("FLOPs (M)", "parameters (M)", "data", "source")
        align = ("---", "---", ":-:", ":-:", "---:", "---:", "---:", "---:", "---", "---")
        cells = [map(markdown, _cells(row)) for row in self.rows]
        lines = [header, align, *cells]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return "\n".join([table, *(f"\n{note}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """The same figures as fractions and numbers, with half widths of 95 % intervals."""
        return csv_lines(Row, self.rows, ("top1", "top1_difference", "top5", "top5_difference"))

    def _repr_markdown_(self) -> str:  # how a notebook shows it
        return self.markdown()


def csv_lines(
    header: type[NamedTuple], rows: Iterable[NamedTuple], intervals: Sequence[str]
) -> str:
    """Comma-separated values of rows; of each of the `intervals` its half width, too."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    halves = {name: (name, f"{name}_half_width") for name in intervals}
    writer.writerow([x for f in header._fields for x in halves.get(f, (f,))])
    for row in rows:
        cells: list[Any] = []
        for field, value in row._asdict().items():
            if field in intervals:
                cells += ["" if x is None else f"{x:.6g}" for x in value or (None, None)]
            elif isinstance(value, str):
                cells.append(csv_text(value))
            elif isinstance(value, tuple):
                cells.append(" ".join(f"{x:.6g}" for x in value))
            else:
                cells.append("" if value is None else value)
        writer.writerow(cells)
    return stream.getvalue()


def comparison(runs: Sequence[RunRecord], published: bool = True) -> Table:
    """The table of the runs' networks, and the published rows of the same network and data."""
    notes = [
        "Differences are to the original network of the same run, at an equal budget; published "
        "ones to the baseline of each source. FLOPs are multiply-accumulates of one image. Top-1 "
        "and top-5 are of the test split; ± is a 95 % confidence interval over seeds, and of fewer "
        f"than {FEWEST_SEEDS} every seed is shown."
    ]
    tasks: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        tasks.setdefault((run.config["network"], run.config["data"]["name"]), []).append(run)
    rows, used = [], []
    for group in tasks.values():
        rows += [row for run in group for row in _rows(run)]
        records = [r for r in _published()["rows"] if published and _same_task(r, group[0])]
        rows += map(_published_row, records)
        used += records
    return Table(tuple(rows), tuple(notes + _citations(used)))


def published_table(data: str, network: str | None = None) -> Table:
    """The published rows of "imagenet" or "cifar100", of one network of a config or of all."""
    wanted = [r for r in _published()["rows"] if r["data"] == data]
    wanted = [r for r in wanted if network in (None, r["network"])]
    return Table(tuple(map(_published_row, wanted)), tuple(_citations(wanted)))


def _citations(records: Sequence[dict]) -> list[str]:
    keys = dict.fromkeys(record["source"] for record in records)
    return [f"Published [{key}]: {_published()['sources'][key]}." for key in keys]


@functools.cache
def _published() -> dict[str, Any]:
    file = importlib.resources.files("furs_jax.report") / "published.json"
    return json.loads(file.read_text())


def _same_task(record: dict, run: RunRecord) -> bool:
    data = run.config["data"]["name"].lower()
    return record["network"] == run.config["network"] and (
        record["data"] in data or (record["data"] == "imagenet" and "ilsvrc" in data)
    )


def _published_row(record: dict) -> Row:
    def fraction(key: str) -> Interval | None:
        return None if record[key] is None else Interval(record[key] / 100, None)

    width = record["width"]
    return Row(
        data=record["data"],
        network=record["network"] + ("" if width in (None, 1) else f" {width:g}x"),
        method=method_title(NETWORK_ADJUSTMENT)
        if record["method"] == "searched"
        else record["method"],
        ft=record["ft"],
        kd=record["kd"],
        top1=fraction("top1"),
        top1_difference=fraction("d_top1"),
        top5=fraction("top5"),
        top5_difference=fraction("d_top5"),
        macs_m=record["macs_m"],
        params_m=record["params_m"],
        source=f"published [{record['source']}]",
    )


def method_title(name: str) -> str:
    """Of a method, as `config.method` names it: "Network Adjustment", or as published: "SFP"."""
    *_, own = name.split(":")
    known = {row["method"].lower(): row["method"] for row in _published()["rows"]}
    return own if ":" in name else known.get(name) or name.replace("_", " ").title()


def _rows(run: RunRecord) -> list[Row]:
    rows = []
    for name, entry in run.networks().items():
        seeds = len(entry["seeds"])
        told = [run.name, run.progress, f"{seeds} seed{'' if seeds == 1 else 's'}"]
        shown = run.difference(name)
        rows.append(
            Row(
                data=run.data,
                network=run.title,
                method=method_title(run.method) if name == "searched" else name,
                ft=is_fine_tuned(run, name),
                kd=is_distilled(run.config, name),
                top1=entry["top1"],
                top1_difference=shown["top1"],
                top5=entry["top5"],
                top5_difference=shown["top5"],
                macs_m=None if entry["macs"] is None else entry["macs"] / 1e6,
                params_m=None if entry["params"] is None else entry["params"] / 1e6,
                source=", ".join(filter(None, told)),
                cost=entry.get("cost"),
                unit=run.allowance.unit,
                top1_seeds=tuple(seed["top1"] for seed in entry["seeds"]),
                top5_seeds=tuple(seed["top5"] for seed in entry["seeds"]),
            )
        )
    return rows


def is_fine_tuned(run: RunRecord, name: str) -> bool:
    """Whether its training begins with weights: Network Adjustment's first round does."""
    pruned = name == "searched" and run.method != NETWORK_ADJUSTMENT
    return bool(run.config.get("init_from")) and (pruned or name == TRAINED)


def is_distilled(config: dict[str, Any], name: str) -> bool:
    teacher = config.get("kd", {}).get("teacher")
    return teacher is not None and not teacher == name == ORIGINAL


def _cells(row: Row) -> tuple[str, ...]:
    def score(value: Interval | None, difference: Interval | None, seeds: Sequence[float]) -> str:
        if value is None:
            return "—"
        text = score_text(value, seeds) if seeds else value.format()
        return text + (f" ({difference.format(sign=True)})" if difference else "")

    def millions(value: float | None) -> str:
        # Four digits, as the papers have them.
        if value is None:
            return "—"
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"

    return (
        row.network,
        row.method,
        "✓" if row.ft else "",
        "✓" if row.kd else "",
        score(row.top1, row.top1_difference, row.top1_seeds),
        score(row.top5, row.top5_difference, row.top5_seeds),
        millions(row.macs_m),
        millions(row.params_m),
        row.data,
        row.source,
    )
