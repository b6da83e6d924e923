"""Searches replayed on a table of networks that somebody has trained: every vector of widths.

    python benchmarks/channel_bench.py TABLE.npz --network mobilenet --level 2 --out runs/table

TABLE.npz has, for each network, NAME_widths (M, L), in whole steps, NAME_acc (M, runs), in per
cent, and NAME_macs (M,), as Channel-Bench-Macro (Su et al.) can be written. The budget is what the
network with `level` steps at every site costs; a training is one of a vector's runs, drawn at
random. A search's gain is what its vector is above the uniform one in the smooth truth: the
quadratic in log widths that fits all means. Writes curves.csv, with bands from the 10th to the
90th percentile of repetitions, and, where matplotlib is installed, curves.png.
"""

import argparse
import csv
import pathlib

import numpy as np

from benchmarks import table_searches
from benchmarks.table_searches import Table, Told
from furs_jax.widths.worth.surface import features

SEARCHES = {
    "response": table_searches.response,
    "greedy": table_searches.greedy,
    "evolution": table_searches.evolution,
    "random": table_searches.random,
    "uniform": table_searches.uniform,
}


def read_table(path: str, network: str, level: int) -> tuple[Table, np.ndarray]:
    """The table, and each vector's gain over the uniform one in the smooth truth, (M,)."""
    with np.load(path) as file:
        widths, scores, costs = (file[f"{network}_{name}"] for name in ("widths", "acc", "macs"))
    table = Table(widths.astype(int), scores.astype(float), costs.astype(float), level)
    seen = features(table.space.offsets(table.vectors))
    design = np.column_stack([np.ones(len(seen)), seen])
    return table, seen @ np.linalg.lstsq(design, np.mean(table.scores, axis=1))[0][1:]


def row(search: str, told: list[Told], gains: np.ndarray) -> dict[str, object]:
    """Of the results: one search, one number of trainings, all repetitions."""
    low, high = np.quantile(gains, (0.1, 0.9))
    found = {
        "search": search,
        "asked": told[0].asked,
        "trained": np.mean([t.trained for t in told]),
        "gain": np.mean(gains),
        "standard_error": np.std(gains) / np.sqrt(len(gains)),
        "low": low,
        "high": high,
        "uniform": np.mean([gain == 0 for gain in gains]),
    }
    answers = [t.answer for t in told if t.answer]
    if answers:
        # Where a search answers "uniform", the interval of its gain is a point, and says nothing.
        pairs = [(a, g) for a, g in zip(answers, gains, strict=True) if a.low < a.high]
        found["predicted"] = np.mean([a.gain for a in answers])
        found["covered"] = np.mean([a.low <= g <= a.high for a, g in pairs]) if pairs else 1.0
        found["sure"] = np.mean([a.sure for a in answers])
        found["gain_where_sure"] = np.mean(
            [g if a.sure else 0 for a, g in zip(answers, gains, strict=True)]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table")
    parser.add_argument("--network", default="mobilenet")
    parser.add_argument("--level", type=int, default=2, help="steps of the uniform network")
    parser.add_argument("--trainings", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--searches", nargs="+", default=list(SEARCHES), choices=SEARCHES)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    given = parser.parse_args()
    table, truth = read_table(given.table, given.network, given.level)
    best = np.max(truth[table.shares <= 1])
    print(f"{given.network} of {given.level} steps: {best:.3f} points are there")
    rows = []
    for name in given.searches:
        told = [
            list(SEARCHES[name](table, seed, sorted(given.trainings)))
            for seed in range(given.repetitions)
        ]
        for same in zip(*told, strict=True):
            gains = np.array([truth[table.place(t.vector)] for t in same])
            rows.append(row(name, list(same), gains - truth[table.place(table.space.reference)]))
            print(_line(rows[-1]), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    fields = list(dict.fromkeys(key for found in rows for key in found))
    with open(given.out / "curves.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, best, f"{given.network}, {given.level} steps", given.out / "curves.png")


def _line(found: dict[str, object]) -> str:
    numbers = {k: v for k, v in found.items() if isinstance(v, float) and k != "standard_error"}
    shown = "  ".join(f"{key} {value:.3f}" for key, value in numbers.items())
    return f"{found['search']:18s} {found['asked']:3d}  {shown}"


def draw(rows: list[dict], best: float, title: str, path: pathlib.Path) -> None:
    """Gain against trainings, a line and a band for each search."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no curves.png: matplotlib isn't installed (pip install -e '.[report]')")
        return
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(found["search"] for found in rows):
        own = [found for found in rows if found["search"] == name]
        counts = [found["asked"] for found in own]
        (line,) = axes.plot(counts, [found["gain"] for found in own], marker=".", label=name)
        low, high = ([found[side] for found in own] for side in ("low", "high"))
        axes.fill_between(counts, low, high, color=line.get_color(), alpha=0.1, linewidth=0)
    axes.axhline(best, color="gray", linestyle=":", linewidth=1, label="best there is")
    axes.set(title=title, xlabel="trainings", ylabel="gain over uniform, points")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
