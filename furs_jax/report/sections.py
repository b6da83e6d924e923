"""The page's parts about what a search did: FURs, widths, curves, budget and time."""

import math
from collections.abc import Sequence
from typing import Any

from furs_jax.options.units import amount, per, scale_of
from furs_jax.report.captions import short_names, site_label
from furs_jax.report.changes import CHANGES, site_changes
from furs_jax.report.charts import (
    NETWORK_STYLES,
    Curve,
    Mark,
    legend,
    line_chart,
    mark_chart,
    number,
    span,
)
from furs_jax.report.markup import Markup, element, join
from furs_jax.report.run_record import RunRecord
from furs_jax.run.forecast import duration
from furs_jax.run.lines import final_phase
from furs_jax.run.text import printable

Record = dict[str, Any]
Curves = dict[str, list[tuple[int, float]]]  # phase -> (epoch, value)

# Classes of page.css for each of `CHANGES`.
_STYLES = (
    "wider",
    "narrower",
    "wider hollow",
    "narrower hollow",
    "same",
    "same hollow",
    "four hollow",
)
# Parts of a round's seconds.
_PARTS = {
    "train": "training of the search",
    "furs": "measuring FURs",
    "slim": "slimming",
    "compile": "compiling in the search",
}
MOST_ROWS = 36  # of a table of sites; more stand beside it
_OPEN = 4  # rounds whose charts are shown unasked, the last ones


def furs(run: RunRecord) -> Markup | None:
    """A chart of every round's FURs with standard errors, and what became of the sites."""
    if not run.rounds:
        return None
    names = short_names(run.every_site)
    scale = scale_of(run.allowance.unit).by
    reach = [
        scale * (fur + side * error)
        for line in run.grid
        for fur, error in zip(line["furs"], _errors(line), strict=True)
        for side in (-1, 1)
    ]
    shown = span([*reach, 0.0])
    charts = [_fur_chart(run, line, names, shown) for line in run.grid]
    used = {place for line in run.grid for place, sites in enumerate(site_changes(line)) if sites}
    keys = legend((CHANGES[place], _STYLES[place]) for place in sorted(used))
    early, late = charts[:-_OPEN], charts[-_OPEN:]
    folded = [
        element("details", element("summary", f"The {len(early)} rounds before"), _grid(early))
    ]
    told = f"uses its {run.allowance.unit} well, and is widened."
    told = f"Bars are standard errors. A site with a high FUR {told}"
    return join(element("p", told, class_="note"), keys, folded if early else None, _grid(late))


def _fur_chart(
    run: RunRecord, line: Record, names: Sequence[str], shown: tuple[float, float]
) -> Markup:
    errors, marks = _errors(line), []
    scale = scale_of(run.allowance.unit).by
    for style, sites in zip(_STYLES, site_changes(line), strict=True):
        for site in sites:
            fur, error = (scale * v for v in (line["furs"][site], errors[site]))
            widths = f"{line['channels'][site]} channels, then {line['next_channels'][site]}"
            told = f"{names[site]}: {number(fur)} ± {number(error)}; {widths}"
            marks.append(Mark(site, fur, error, style, told))
    metric = run.config.get("furs", {}).get("metric", "loss")
    parent = line.get("next_parent", line["round"])
    back = f", then back to {parent + 1}" if parent != line["round"] else ""
    chart = mark_chart(
        marks,
        list(enumerate(names)),
        site_label(names),
        f"FUR ({metric} per {per(run.allowance.unit)})",
        shown,
        0.0,
    )
    return _figure(chart, f"Round {line['round'] + 1}{back}")


def _errors(line: Record) -> Sequence[float]:
    return line.get("furs_stderr") or [0.0] * len(line["furs"])


def widths(run: RunRecord) -> Markup | None:
    """Every site's width after every round; colours show the change from the start."""
    if not run.rounds:
        return None
    vectors = [run.grid[0]["channels"], *(line["next_channels"] for line in run.grid)]
    head = element(
        "tr", element("th", "site"), *(element("th", n or "start") for n in range(len(vectors)))
    )
    rows = [
        element("tr", element("th", name), *(_cell(own[0], width) for width in own))
        for name, own in zip(short_names(run.every_site), zip(*vectors, strict=True), strict=True)
    ]
    tables = [
        element("table", element("thead", head), element("tbody", *rows[n : n + MOST_ROWS]))
        for n in range(0, len(rows), MOST_ROWS)
    ]
    note = "Channels at the start and after each round; colours show the change from the start."
    if run.channels in vectors and run.channels != vectors[-1]:
        note += f" Searched: after round {vectors.index(run.channels)}."
    return join(element("p", note, class_="note"), element("div", *tables, class_="scroll heat"))


def _cell(start: int, width: int) -> Markup:
    """Full colour from half or twice the start's width; "—" where the site is not there."""
    if not start or not width:
        return element("td", width or "—", class_="wider" if width else None)
    strength = min(abs(width / start - 1) if width > start else abs(start / width - 1), 1.0)
    kind = "wider" if width > start else "narrower" if width < start else None
    style = f"--strength: {100 * strength:.0f}%" if kind else None
    return element("td", width, class_=kind, style=style)


def training_curves(run: RunRecord) -> Markup | None:
    """The training loss of the search and of the final trainings, and each round's search loss."""
    titles = {stage.phase: stage.title for stage in run.stages}
    figures = []
    if found := _curves(run, final=False):
        if run.config["search"].get("warm_start"):
            found = _one_behind_the_other(found)
        *before, last = found
        curves = [Curve(titles[phase], found[phase], "one faint") for phase in before]
        curves.append(Curve(titles[last], found[last], "one strong"))
        keys = [(titles[last], "one strong"), ("those before", "one faint")][: len(found)]
        chart = line_chart(curves, "epoch", "training loss")
        figures.append(_figure(join(chart, legend(keys)), "Search"))
    judged = [(n["round"] + 1, n["search_loss"]) for n in run.rounds if "search_loss" in n]
    if len(judged) > 1:
        chart = line_chart([Curve("search loss", judged, "one")], "round", "search loss")
        figures.append(_figure(chart, "Loss on the search split, each round"))
    if found := _curves(run, final=True):
        seeds = range(run.config["final"]["seeds"])
        names = {final_phase(n, seed): n for n in run.final_names() for seed in seeds}
        styles = {names[phase]: NETWORK_STYLES[names[phase]] for phase in found}
        curves = [Curve(titles[p], points, styles[names[p]]) for p, points in found.items()]
        chart = line_chart(curves, "epoch", "training loss")
        figures.append(_figure(join(chart, legend(styles.items())), "Final trainings"))
    return _grid(figures) if figures else None


def _curves(run: RunRecord, final: bool) -> Curves:
    """The loss of the final trainings or of the search's."""
    phases = {stage.phase for stage in run.stages if stage.final == final}
    found: Curves = {}
    for line in run.epochs:
        if line["phase"] in phases and type(line.get("loss")) in (int, float):
            found.setdefault(line["phase"], []).append((line["epoch"], line["loss"]))
    return found


def _one_behind_the_other(found: Curves) -> Curves:
    """Curves of rounds that go on with the last one's weights."""
    begin, moved = 0, {}
    for phase, points in found.items():
        moved[phase] = [(begin + epoch, value) for epoch, value in points]
        begin = moved[phase][-1][0]
    return moved


def budget(run: RunRecord) -> Markup | None:
    """What a vector may cost, and what each one does."""
    result, unit = run.result or {}, run.allowance.unit
    limit, found = run.allowance.budget, result.get("searched", {})
    rows = []
    if limit is not None:
        rows.append(("budget", f"{amount(limit)} {unit}"))
        if "macs" in found:
            cost = found.get("theoretical_macs", found.get("cost", found["macs"]))
            rows.append(("used by the searched network", f"{100 * cost / limit:.2f} %"))
    for name, most in run.allowance.limits.items():
        rows.append((f"limit on {printable(name)}", amount(most)))
        if name in (used := found.get("limits", {})):
            share = f"{100 * used[name] / most:.2f} %"
            rows.append(("of it used by the searched network", share))
    if result.get("search_macs"):
        rows.append(("MACs of the search's trainings", f"{result['search_macs']:.3g}"))
        if result.get("final_macs"):
            share = result["search_macs"] / result["final_macs"]
            rows.append(("final trainings that take as many", f"{share:.2f}"))
    charts = [_cost_chart(run, unit) for unit in dict.fromkeys((unit, "MACs"))]
    charts = [chart for chart in charts if chart is not None]
    if not rows and not charts:
        return None
    return _grid([*charts, element("div", facts(rows))] if rows else charts)


def _cost_chart(run: RunRecord, unit: str) -> Markup | None:
    """What the vectors of the rounds cost in a unit, as shares of the budget in it."""
    if not run.rounds:
        return None
    key = {"MACs": "macs", "params": "params"}.get(unit, "cost")
    costs = [(line["round"], line[key]) for line in run.rounds if key in line]
    last = len(run.rounds)
    if unit == "MACs":
        costs = [(0, run.rounds[0]["macs"])]
        costs += [(line["round"] + 1, line["next_macs"]) for line in run.rounds]
    elif run.result is not None and run.result["searched"]["channels"] == run.channels:
        costs.append((last, run.result["searched"][key]))
    if run.allowance.budget is not None and unit == run.allowance.unit:
        scale, level, label = run.allowance.budget / 100, 100.0, "% of the budget"
    else:
        (scale, _, label), level = scale_of(unit), None
    marks = [
        Mark(place, cost / scale, 0.0, "one", f"{place or 'start'}: {amount(cost)} {unit}")
        for place, cost in costs
    ]
    labels = [(place, str(place or "start")) for place, _ in costs]
    return _figure(mark_chart(marks, labels, "after round", label, None, level), unit)


def times(run: RunRecord) -> Markup | None:
    """Where the wall time went, as a bar and as figures."""
    parts = {title: seconds for title, seconds in _time_parts(run).items() if seconds > 0}
    total = sum(parts.values())
    if not total:
        return None
    segments = [
        element("i", class_=f"part{place % 6}", style=f"width: {100 * seconds / total:.2f}%")
        for place, seconds in enumerate(parts.values())
    ]
    rows = [
        element(
            "tr",
            element("td", element("i", class_=f"key part{place % 6}"), title),
            element("td", duration(seconds)),
            element("td", f"{100 * seconds / total:.0f} %"),
        )
        for place, (title, seconds) in enumerate(parts.items())
    ]
    rows.append(element("tr", element("td", "together"), element("td", duration(total)), _EMPTY))
    return join(
        element("div", *segments, class_="stack"),
        element("table", *rows, class_="figures"),
        element("p", "Reading the data and testing are not in it.", class_="note"),
    )


def _time_parts(run: RunRecord) -> dict[str, float]:
    """Seconds of what was done so far; testing and reading of data are in none."""
    parts: dict[str, float] = {}
    for line in run.lines:
        for part, seconds in line.get("seconds", {}).items():
            if part != "compile_hidden":  # beside other work
                title = _PARTS.get(part, part)
                parts[title] = parts.get(title, 0.0) + seconds
    last = {line["phase"]: line.get("seconds", 0.0) for line in run.epochs}
    for stage in run.stages:
        if not stage.final and not stage.ended and stage.phase in last:
            title = _PARTS["train"]
            parts[title] = parts.get(title, 0.0) + last[stage.phase]
    for name in run.final_names():
        phases = [final_phase(name, seed) for seed in range(run.config["final"]["seeds"])]
        seconds = math.fsum(last.get(phase, 0.0) for phase in phases)
        if seconds:
            parts[f"final trainings, {name}"] = seconds
    return parts


_EMPTY = element("td")


def facts(rows: Sequence[tuple[str, Any]]) -> Markup:
    """Names and what they are."""
    pairs = [(element("dt", name), element("dd", value)) for name, value in rows]
    return element("dl", *pairs)


def _figure(chart: Markup, title: str) -> Markup:
    return element("figure", element("figcaption", title), chart)


def _grid(parts: Sequence[Markup]) -> Markup:
    return element("div", *parts, class_="grid")
