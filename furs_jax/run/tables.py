"""Plain-text tables of networks and results."""

from collections.abc import Iterable, Sequence
from typing import Any

from furs_jax.networks.network import Network
from furs_jax.options.units import amount
from furs_jax.run.lines import depths_text
from furs_jax.run.statistics import FEWEST_SEEDS, Interval, score_text, shown
from furs_jax.run.text import printable
from furs_jax.run.verdict import image_time, judge, next_step

Record = dict[str, Any]


def format_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: list[str]) -> str:
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def network_table(net: Network, channels: Sequence[int]) -> str:
    """The network's layers: where the sites are and what each layer costs."""
    layers = net.layers(channels)
    total = sum(layer.macs for layer in layers)
    rows = [
        (
            layer.name,
            "" if layer.site is None else layer.site,
            "x".join(map(str, layer.window)),
            layer.inputs,
            layer.outputs,
            f"{layer.height}x{layer.width}",
            f"{layer.macs:,}",
            f"{100 * layer.macs / total:.1f}%",
            f"{layer.params:,}",
        )
        for layer in layers
    ]
    params = sum(layer.params for layer in layers)
    rows.append(("total", "", "", "", "", "", f"{total:,}", "100.0%", f"{params:,}"))
    header = ("layer", "site", "kernel", "in", "out", "output", "MACs", "share", "params")
    return format_table(header, rows)


def result_table(result: Record) -> str:
    """Original, start (where it is another) and searched, with differences and intervals."""
    names = [name for name in ("original", "start", "searched") if name in result]
    unit = result["searched"].get("unit", "MACs")  # MACs are told anyway
    own = () if unit in ("MACs", "params") else (unit,)
    forward, rows = result.get("forward"), []
    for name in names:
        network = result[name]
        size = [amount(network[key]) for key in (*("cost" for _ in own), "macs", "params")]
        size += [image_time(forward, name)] if forward else []
        rows.append((name, *size, *score_cells(network)))
    sizes = (*own, "MACs", "params", *(("ms/image",) if forward else ()))
    verdicts, step, seeds = [], None, len(result["searched"]["seeds"])
    for title, key, reference in (
        ("difference", "difference", "original"),
        ("difference from start", "difference_from_start", "start"),
    ):
        if key in result:
            found = [Interval(*value) for value in result[key].values()]
            told = (shown(one, seeds).format(sign=True) for one in found)
            rows.append((title, *("" for _ in sizes), *told))
            verdict = judge(result["searched"], result[reference], found[0], reference, forward)
            verdicts += [verdict.difference, verdict.size]
            step = f"Next: {next_step(verdict.finding)}."  # the last is what it began with
    return "\n".join(
        [
            format_table(("network", *sizes, "top-1 %", "top-5 %"), rows),
            f"test split, {seeds} seed{'s' if seeds > 1 else ''} each; "
            + interval_note(seeds)
            + f"; budget {amount(result['budget'])} {unit}",
            *(
                f"beside its limits the searched network has {name} {amount(used)}"
                for name, used in result["searched"].get("limits", {}).items()
            ),
            *([_predicted(result["prediction"])] if "prediction" in result else []),
            *(
                [
                    f"search: trained {result['search_macs']:.3g} MACs, "
                    f"{result['search_macs'] / result['final_macs']:.2f} times one final training"
                ]
                if result.get("search_macs")  # what prunes while it trains has none
                else []
            ),
            *(
                f"{name:8}  channels {' '.join(map(str, result[name]['channels']))}"
                + (f"  blocks {depths_text(result[name])}" if result[name].get("depths") else "")
                for name in names
            ),
            *(["", *verdicts, step] if verdicts else []),
        ]
    )


def score_cells(network: Record) -> list[str]:
    """Top-1 and top-5 of a result's entry, as tables show them."""
    return [
        score_text(Interval(*network[key]), [seed[key] for seed in network["seeds"]])
        for key in ("top1", "top5")
    ]


def interval_note(seeds: int) -> str:
    """What a table of scores over so many seeds shows of each."""
    if seeds >= FEWEST_SEEDS:
        return "± is a 95 % confidence interval"
    return f"every seed is shown: fewer than {FEWEST_SEEDS} give no interval to go by"


def _predicted(prediction: Record) -> str:
    """What a search expected of the found network, before it was trained."""
    gain, low, high = (100 * prediction[key] for key in ("gain", "low", "high"))
    return (
        f"predicted after {prediction['trainings']} trainings: {gain:+.2f} ({low:+.2f} to "
        f"{high:+.2f}) above the network that the search began with"
    )
