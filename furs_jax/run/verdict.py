"""Whether a search was worth it, in plain words: the same on the terminal, page and in reports."""

import enum
import statistics
from typing import Any, NamedTuple

from furs_jax.options.units import amount
from furs_jax.run.statistics import FEWEST_SEEDS, Interval, ratio_interval, score_text

Record = dict[str, Any]


class Finding(enum.Enum):
    """What a difference in top-1 says."""

    BETTER = "better"
    WORSE = "worse"
    NOISE = "within noise"
    FEW = "too few seeds"


class Judgement(NamedTuple):
    """A judgement in sentences."""

    finding: Finding
    difference: str  # better or not, by how much, how sure
    size: str  # what became of MACs, parameters and, where it was measured, the time


def judge(
    found: Record,
    reference: Record,
    difference: Interval,
    name: str,
    forward: Record | None = None,
) -> Judgement:
    """The searched network beside another one.

    Args:
      found, reference: their entries, as in result.json.
      difference: of top-1, as fractions.
      name: of the other one, "original" or "start".
      forward: the networks' times, as in result.json; None where they were not measured.
    """
    return Judgement(
        finding := finding_of(found, reference, difference),
        _difference(finding, found, reference, difference, name),
        f"{_size(found, reference, name)}{_time(forward, name)}",
    )


def image_time(forward: Record, name: str) -> str:
    """What an image takes a network, in ms: the median of its turns."""
    return f"{1000 * statistics.median(forward['seconds'][name]):.3g}"


def finding_of(found: Record, reference: Record, difference: Interval) -> Finding:
    """What the difference says, beyond the noise of seeds or not."""
    if _fewest(found, reference) < FEWEST_SEEDS:
        return Finding.FEW
    if abs(difference.mean) <= difference.half_width:
        return Finding.NOISE
    return Finding.BETTER if difference.mean > 0 else Finding.WORSE


def next_step(finding: Finding) -> str:
    """What to do after a search that ended so."""
    return {
        Finding.BETTER: "use the searched network, or search on from its widths (channels_from)",
        Finding.WORSE: "keep the original, or give rounds longer trainings (train.epochs)",
        Finding.NOISE: "more seeds tell smaller differences (final.seeds); what there is to gain "
        "at all says python -m furs_jax.bench headroom",
        Finding.FEW: f"{FEWEST_SEEDS} seeds or more say how sure a difference is: "
        "--config.final.seeds=5 and another --workdir",
    }[finding]


def _fewest(*networks: Record) -> int:
    return min(len(network["seeds"]) for network in networks)


def _difference(
    finding: Finding, found: Record, reference: Record, difference: Interval, name: str
) -> str:
    gain = f"{100 * difference.mean:+.2f} points of top-1"
    if finding is Finding.FEW:
        return (
            "There are too few seeds to tell whether the searched network is better than the "
            f"{name}: {gain} ({_scores(found)} against {_scores(reference)})."
        )
    low, high = (100 * (difference.mean + side * difference.half_width) for side in (-1, 1))
    counts = dict.fromkeys(str(len(network["seeds"])) for network in (found, reference))
    seeds = f"{' and '.join(counts)} seeds{' each' if len(counts) == 1 else ''}"
    interval = f"95 % interval {low:+.2f} to {high:+.2f}, {seeds}"
    if finding is Finding.NOISE:
        return (
            f"The searched network can't be told from the {name}: {gain} are within the noise of "
            f"seeds ({interval})."
        )
    return (
        f"The searched network is {finding.value} than the {name}, beyond the noise of seeds: "
        f"{gain} ({interval})."
    )


def _scores(network: Record) -> str:
    return score_text(Interval(*network["top1"]), [seed["top1"] for seed in network["seeds"]])


def _size(found: Record, reference: Record, name: str) -> str:
    known = [("macs", "MACs"), ("params", "parameters")]
    if (unit := found.get("unit", "params")) != "params":  # of another resource
        known.insert(0, ("cost", unit))
    parts = [
        f"{amount(found[key])} {what} ({100 * (found[key] / reference[key] - 1):+.1f} %)"
        for key, what in known
        if found[key] and reference[key]
    ]
    return f"It has {' and '.join(parts)}, compared with the {name}." if parts else ""


def _time(forward: Record | None, name: str) -> str:
    if forward is None:
        return ""
    ratio = ratio_interval(forward["seconds"]["searched"], forward["seconds"][name])
    return (
        f" An image takes it {image_time(forward, 'searched')} ms, {ratio.format(1.0)} times as "
        f"long ({forward['device']}, batches of {forward['batch_size']})."
    )
