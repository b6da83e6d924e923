"""What a search by trainings of whole vectors expects to gain, in figures and in words.

Its lines tell gains as -log of the search loss, with the ends of their 95 % intervals.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from furs_jax.run.entries import size_text

Record = dict[str, Any]

# Intervals that tell nothing: of a share, and of a loss's logarithm.
_WIDE, _VAGUE = 0.8, 1.0


def prediction(rounds: Sequence[Record]) -> Record:
    """What the comparison should show of the found network above the first one.

    Returns:
      gain, low, high: of top-1, as shares; log_loss: the same of the loss's logarithm; trainings:
        what it was learned from.
    """
    last = rounds[-1]
    bounds = [last[key] for key in ("gain", "low", "high")]
    points = _accuracy_per_score(rounds)
    gain, low, high = (points * bound for bound in bounds)
    log_loss = [0.0 - bound for bound in bounds]  # no minus zero
    return {
        "gain": gain,
        "low": low,
        "high": high,
        "log_loss": log_loss,
        "trainings": len(rounds),
    }


def _accuracy_per_score(rounds: Sequence[Record]) -> float:
    """By how much networks of a higher score are more accurate: the slope through all of them."""
    scores, accuracies = (
        np.array([record[key] for record in rounds]) for key in ("score", "search_accuracy")
    )
    apart = scores - np.mean(scores)
    spread = float(apart @ apart)
    return max(float(apart @ accuracies) / spread, 0.0) if spread else 0.0


def training_line(record: Record, most: int) -> str:
    """One training, and what is known after it, in two lines."""
    seconds = record["seconds"]
    spent = ", ".join(
        f"{name} {seconds[part]:.0f}s"
        for part, name in (
            ("train", "train"),
            ("furs", "FURs"),
            ("decide", "decide"),
            ("compile", "compile"),
        )
        if part != "furs" or seconds[part]
    )
    stays = record["gain"] == record["low"] == record["high"] == 0
    known = f"the best should have a loss {_lower(record)}"
    if record["high"] - record["low"] > _VAGUE:
        known = "what the best would gain can't be told yet"
    if stays:
        known = "nothing is expected to be better than the first widths"
    return (
        f"training {record['round'] + 1}/{most}  {size_text(record)}  "
        f"train loss {record['train_loss']:.4f}  search loss {record['search_loss']:.4f}  "
        f"search accuracy {100 * record['search_accuracy']:.2f}%\n"
        f"    {known}  [{spent}]"
    )


def _lower(record: Record) -> str:
    """A gain with its interval, as per cent of the loss."""
    gain, low, high = (100 * -math.expm1(-record[key]) for key in ("gain", "low", "high"))
    return f"{gain:.1f}% ({low:.1f} to {high:.1f}) lower"


def conclusion(rounds: Sequence[Record], site_names: Sequence[str]) -> str:
    """What a search has found, in words."""
    last = rounds[-1]
    noise = f"seeds differ by {100 * last['noise']:.1f}% of the loss"
    if last["found"] == rounds[0]["channels"]:
        found = [
            f"after {len(rounds)} trainings nothing that counts is to be gained: the first widths "
            "stay",
            f"to know all would lower the loss by {100 * last['open']:.1f}%, as expected; {noise}",
        ]
    else:
        top1 = prediction(rounds)
        gain, low, high = (100 * top1[key] for key in ("gain", "low", "high"))
        sure = "" if last["low"] > 0 else "; that nothing is gained is not excluded"
        found = [
            f"after {len(rounds)} trainings these widths should have a loss {_lower(last)} than "
            f"the first, and a top-1 higher by {gain:.2f} points ({low:.2f} to {high:.2f}){sure}: "
            f"{' '.join(map(str, last['found']))}",
            f"intervals hold the truth with 95 %; {noise}",
        ]
    for key, more in (("wider", "more"), ("narrower", "less")):
        if last[key]:
            named = ", ".join(site_names[site] for site in last[key])
            found.append(f"sites that are surely worth {more} than the first widths spend: {named}")
    return "\n".join([*found, _of_furs(last)])


def _of_furs(record: Record) -> str:
    low, high = record["share_low"], record["share_high"]
    if high - low > _WIDE:
        return "how much FURs explain of what retraining shows, these trainings don't tell"
    return (
        f"FURs explained {record['share']:.0%} of what retraining showed ({low:.0%} to {high:.0%})"
    )
