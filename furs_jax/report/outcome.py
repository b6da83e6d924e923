"""The page's first parts: was the search worth it, and the networks beside each other."""

from typing import Any

from furs_jax.options.units import amount
from furs_jax.report.captions import MINUS
from furs_jax.report.charts import NETWORK_STYLES, Mark, mark_chart, span
from furs_jax.report.markup import Markup, element, join
from furs_jax.report.run_record import METRICS, RunRecord
from furs_jax.run.lines import depths_text
from furs_jax.run.statistics import Interval, score_text
from furs_jax.run.verdict import Judgement, image_time, judge, next_step

Record = dict[str, Any]


def worth(run: RunRecord) -> Markup:
    """Whether the found network is better, by how much and how sure, in words and a chart."""
    networks = run.networks()
    trained = {name: entry for name, entry in networks.items() if entry["seeds"]}
    found = "searched" if run.searches else "trained"
    if found not in trained:
        told = run.progress.removeprefix("unfinished: ")
        said = element("p", f"Not known yet: {told} have ended.")
        return join(said, _scores(trained))
    references = [name for name in ("original", "start") if name in trained]
    said: list[Markup | None] = [_judged(run, trained, name) for name in references]
    if references and run.result is not None:  # the last one is what it began with
        finding = _judgement(run, trained, references[-1]).finding
        said.append(element("p", f"Next: {next_step(finding)}.", class_="note"))
    if not references:
        entry = trained[found]
        said = [element("p", _alone(run, entry), class_="verdict")]
    return element("div", element("div", said), _scores(trained), class_="aside")


def _judged(run: RunRecord, networks: dict[str, Record], name: str) -> Markup:
    judgement = _judgement(run, networks, name)
    return join(
        element("p", judgement.difference, class_=f"verdict {judgement.finding.name.lower()}"),
        element("p", judgement.size) if judgement.size else None,
    )


def _judgement(run: RunRecord, networks: dict[str, Record], name: str) -> Judgement:
    difference = run.difference("searched", name)["top1"]
    return judge(networks["searched"], networks[name], difference, name, _forward(run))


def _forward(run: RunRecord) -> Record | None:
    """The networks' times for an image; None where they were not measured, or not yet."""
    return (run.result or {}).get("forward")


def _alone(run: RunRecord, entry: Record) -> str:
    score = _score(entry, "top1")
    if not run.searches:
        return f"The given network was trained: {score} % of top-1 on the test split."
    return (
        f"The searched network has {score} % of top-1 on the test split. This run trained nothing "
        "to compare it with; python -m furs_jax.report compares several runs."
    )


def _score(entry: Record, key: str) -> str:
    return score_text(Interval(*entry[key]), [seed[key] for seed in entry["seeds"]])


def _scores(networks: dict[str, Record]) -> Markup | None:
    """Every seed's top-1, with the means' intervals."""
    marks, labels = [], []
    for place, (name, entry) in enumerate(networks.items()):
        labels.append((place, name))
        for seed in entry["seeds"]:
            told = f"{name}, seed {seed['seed']}: {100 * seed['top1']:.2f} %"
            marks.append(Mark(place - 0.12, 100 * seed["top1"], 0.0, "same hollow", told))
        mean, half = entry["top1"]
        told = f"{name}: {_score(entry, 'top1')} %"
        style = NETWORK_STYLES[name]
        marks.append(Mark(place + 0.12, 100 * mean, 100 * (half or 0.0), style, told))
    if not marks:
        return None
    reach = [mark.y + side * mark.error for mark in marks for side in (-1, 1)]
    chart = mark_chart(marks, labels, "network", "top-1 (%)", span(reach, least=0.5))
    note = "Circles are seeds; dots their means, with 95 % intervals from three seeds on."
    return element("figure", chart, element("figcaption", note))


def comparison_table(run: RunRecord) -> Markup | None:
    """Original, start and searched: size and scores."""
    networks = run.networks()
    if not networks:
        return None
    forward, deep = _forward(run), any(entry.get("depths") for entry in networks.values())
    blocks = ["blocks"] if deep else []
    own = [] if run.allowance.unit in ("MACs", "params") else [run.allowance.unit]
    sizes = (*blocks, *own, "MACs", "parameters", *(["ms/image"] if forward else []))
    head = ("network", *sizes, "top-1 %", "top-5 %")
    rows = []
    for name, entry in networks.items():
        scores = [_score(entry, key) if entry["seeds"] else "—" for key in METRICS]
        costs = [_count(entry[key]) for key in ("macs", "params")]
        if theoretical := entry.get("theoretical_macs"):
            costs[0] += f" ({theoretical:,} if it could skip zeros)"
        costs += [image_time(forward, name)] if forward else []
        costs[:0] = [depths_text(entry) for _ in blocks] + [_count(entry.get("cost")) for _ in own]
        rows.append((name, *costs, *scores))
    for name in ("original", "start"):
        told = run.difference("searched", name) if "searched" in networks else {}
        if told.get("top1"):
            cells = (told[key].format(sign=True) for key in METRICS)
            rows.append((f"searched {MINUS} {name}", *("" for _ in sizes), *cells))
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *(element("th", text) for text in head))),
            element("tbody", *(_row(cells) for cells in rows)),
            class_="figures",
        ),
        class_="scroll",
    )


def _row(cells: tuple[str, ...]) -> Markup:
    return element("tr", *(element("td", text) for text in cells))


def _count(value: float | None) -> str:
    return "—" if value is None else amount(value)


def vectors(run: RunRecord) -> Markup | None:
    """The networks' channel vectors in full, to be copied."""
    known = {name: entry for name, entry in run.networks().items() if entry["channels"]}
    if not known:
        return None
    lines = [
        f"{name:8}  {' '.join(map(str, entry['channels']))}"
        + (f"  blocks {depths_text(entry)}" if entry.get("depths") else "")
        for name, entry in known.items()
    ]
    parts = [part for line in lines for part in (line, element("br"))]
    return element("details", element("summary", "Channel vectors"), element("pre", parts))
