"""How short a training may be and still rank: the same networks, trained by shorter recipes.

A search trains networks to compare them, not to use them. Sixteen networks at the budget, whose
sites are wider or narrower in mirrored pairs, are trained as the final ones are, and in half as
many epochs, a quarter, down to one. What a short training says is that truth, bent by what it
has of its own (short trainings favour other networks), and seeds' noise; the two are told apart by
the differences between seeds, as in the theory of tests (Spearman, 1904 and 1910).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from furs_jax.bench.retrain import check_sites, retrain, run_from_scratch
from furs_jax.errors import ConfigError
from furs_jax.methods._whole_vectors import score, space_of
from furs_jax.options.schema import Options, Recipe
from furs_jax.run.context import Run
from furs_jax.run.journal import Journal
from furs_jax.run.tables import format_table
from furs_jax.widths.worth.decisions import mirrored

VECTORS = 16


def bench(options: Options, workdir: str) -> None:
    """Trains the networks at each length and says how well each ranks them; goes on if stopped.

    The truth is config.final.train's, the short ones are config.train's with other epochs, each
    with config.final.seeds seeds of its own, all of the train split and judged by the loss on the
    search split. The folder is a run's: ranking.jsonl has one line a training, result.json what
    came out.

    Raises:
      ConfigError: fewer than two seeds or epochs, weights are given, or the network has one site.
      WorkdirError: the folder holds another run.
    """
    run_from_scratch("ranking", options, workdir, _measure, _table, seeds=2)


def recipes(options: Options) -> list[Recipe]:
    """The truth's, and config.train with half of its epochs, a quarter, ... down to one.

    What is left of a short recipe is in proportion: warm-up is the same share of it.
    """
    longest, short = options.final.train, options.train
    share = short.warmup_epochs / short.epochs
    lengths = [longest.epochs >> halvings for halvings in range(1, longest.epochs.bit_length())]
    return [
        longest,
        *(dataclasses.replace(short, epochs=e, warmup_epochs=share * e) for e in lengths),
    ]


def _measure(run: Run) -> dict[str, Any]:
    net, options = run.task.net, run.options
    check_sites(run)
    planned = recipes(options)
    if len(planned) < 2:
        raise ConfigError("give final.train.epochs of at least 2: nothing is shorter than one")
    journal, count = Journal(run.workdir.path / "ranking.jsonl"), options.final.seeds
    even = mirrored(space_of(options, run), VECTORS, options.seed, shares=(1.0, 1.0))
    vectors = list(dict.fromkeys(even))
    # Of its own for each length: equal initial weights would be taken for agreement.
    seeds = [range(first, first + count) for first in range(0, len(planned) * count, count)]
    for place, channels in enumerate(vectors):
        for recipe, own in zip(planned, seeds, strict=True):
            what = f"network {place + 1} of {len(vectors)}, epochs: {recipe.epochs}"
            retrain(run, channels, recipe, journal, what, own)
    lines = {(tuple(line["channels"]), line["seed"]): line for line in journal.read()}
    return {
        "network": net.name,
        "data": run.task.dataset.name,
        "unit": run.cost.unit,
        "vectors": vectors,
        "seeds": count,
        "lengths": [
            {"epochs": recipe.epochs, **_results([[lines[v, s] for s in own] for v in vectors])}
            for recipe, own in zip(planned, seeds, strict=True)
        ],
    }


def _results(lines: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Of one length, lines of each network's seeds."""
    return {
        "scores": [[score(line) for line in row] for row in lines],
        "top1": [[line["search_top1"] for line in row] for row in lines],
    }


class Agreement(NamedTuple):
    """What trainings of one length tell of the truth, which is what others score without noise.

    Attributes:
      noise: standard deviation between seeds.
      spread: that of networks without seeds' noise; 0 where noise explains all.
      faithful: correlation with the truth of what these would score without noise; NaN where
        either doesn't differ between networks by more than noise.
    """

    noise: float
    spread: float
    faithful: float

    def of_mean(self, trainings: float = 1.0) -> float:
        """Correlation of the mean of so many trainings with the truth (Spearman-Brown)."""
        if not self.spread:
            return float("nan")
        return self.faithful / math.hypot(1.0, self.noise / self.spread / math.sqrt(trainings))


def agreement(scores: np.ndarray, truth: np.ndarray) -> Agreement:
    """How well trainings rank.

    Args:
      scores: shape (networks, seeds); higher is better.
      truth: likewise, of other seeds, or the same array.
    """
    (noise, spread), (_, wide) = _parts(scores), _parts(truth)
    if not (spread and wide):
        return Agreement(noise, spread, float("nan"))
    if scores is truth:
        return Agreement(noise, spread, 1.0)
    shared = np.cov(np.mean(scores, axis=1), np.mean(truth, axis=1))[0, 1]
    return Agreement(noise, spread, float(np.clip(shared / (spread * wide), -1, 1)))


def _parts(scores: np.ndarray) -> tuple[float, float]:
    """Standard deviations between seeds, and between networks without them."""
    noise = np.mean(np.var(scores, axis=1, ddof=1))
    between = np.var(np.mean(scores, axis=1), ddof=1) - noise / scores.shape[1]
    return float(np.sqrt(noise)), float(np.sqrt(max(between, 0.0)))


def interval(correlation: float, networks: int) -> tuple[float, float]:
    """95 %, by Fisher's transformation; with noise taken out it holds a little more (simulated)."""
    if networks <= 3:
        return -1.0, 1.0
    half = 1.96 / math.sqrt(networks - 3)
    return tuple(math.tanh(math.atanh(correlation) + end) for end in (-half, half))


def ranks(scores: np.ndarray, truth: np.ndarray, top1: np.ndarray) -> tuple[float, float]:
    """As seen, one training against the truth's mean: Spearman's correlation, and by how much the
    truth's top-1 of the network that it puts first is above all networks' mean.

    Means over trainings. Where the truth judges itself it is its other seeds.
    """
    found = []
    for seed, column in enumerate(scores.T):
        if scores is truth:
            rest = [np.delete(of, seed, axis=1).mean(axis=1) for of in (truth, top1)]
        else:
            rest = [of.mean(axis=1) for of in (truth, top1)]
        first = rest[1][np.argmax(column)] - np.mean(rest[1])
        found.append((stats.spearmanr(column, rest[0]).statistic, first))
    spearman, first = np.mean(found, axis=0)
    return float(spearman), float(first)


def _shown(found: Agreement, networks: int, trainings: float) -> tuple[str, ...]:
    """Of one training, with its interval; without noise; of so many. Nothing of noise alone."""
    single = found.of_mean()
    if math.isnan(single):
        return "", "", ""
    low, high = interval(float(np.clip(single, -0.9999, 0.9999)), networks)
    numbers = (single, found.faithful, found.of_mean(trainings))
    first, *others = (f"{number:.2f}" for number in numbers)
    return f"{first} ({low:.2f} to {high:.2f})", *others


def _table(result: dict[str, Any]) -> str:
    of = [np.array(length["scores"]) for length in result["lengths"]]
    truth, top1 = of[0], np.array(result["lengths"][0]["top1"])
    longest = result["lengths"][0]["epochs"]
    rows = []
    for length, scores in zip(result["lengths"], of, strict=True):
        found, (spearman, first) = agreement(scores, truth), ranks(scores, truth, top1)
        rows.append(
            (
                length["epochs"],
                f"{found.noise:.3f}",
                f"{found.spread:.3f}",
                f"{spearman:.2f}",
                *_shown(found, len(scores), longest / length["epochs"]),
                f"{100 * first:+.2f}",
            )
        )
    header = ("epochs", "noise", "spread", "Spearman", "correlation", "without noise")
    table = format_table((*header, "equal epochs", "the first"), rows)
    return (
        f"{table}\n"
        f"{result['network']}, {result['data']}; {len(result['vectors'])} networks of the same "
        f"{result['unit']}, {result['seeds']} seeds each. Scores are -log of the loss on the "
        "search split.\n"
        "noise, spread: standard deviations of scores between seeds, and between networks without "
        "that (0: noise explains all); Spearman: of one training's scores with the longest ones', "
        "as seen; correlation: the same with the longest ones' without noise (95 %); without "
        "noise: of a mean of many; equal epochs: of as many as have those of one of the longest; "
        "the first: top-1 of the network that one training puts first, by the longest, above the "
        "networks' mean."
    )
