"""How far a run is and how long it will take, as its journals tell."""

import datetime
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from furs_jax.run.lines import final_phase, is_reallocation, round_phase

Record = dict[str, Any]


class Stage(NamedTuple):
    """One of a run's trainings."""

    phase: str  # as in metrics.jsonl
    title: str
    epochs: int
    images: int  # of one epoch
    final: bool  # else of the search
    ended: bool  # and what follows it, too: measuring, or testing


class Forecast(NamedTuple):
    """What is done and what is left."""

    now: str  # what is done at present, in words
    share: float  # of all trainings that is done, from 0 to 1
    seconds: float | None  # until the end; None where nothing tells yet


def stages(
    config: Record,
    networks: Sequence[str],
    images: Record | None,
    rounds: Sequence[Record],
    epochs: Sequence[Record],
    finals: Sequence[Record],
) -> list[Stage]:
    """All trainings, in order, as far as they are known.

    Of a method other than the rounds of Network Adjustment the search's training is known when its
    first epoch has ended.

    Args:
      config: as in config.json.
      networks: names of those that are trained in the end.
      images: number of them in each split; None where the run did not record it.
      rounds, epochs, finals: the lines of rounds.jsonl, metrics.jsonl and finals.jsonl.
    """
    images = images or {"train": 1, "search": 0}
    search = [
        Stage(phase, title, length, images["train"], False, ended)
        for phase, title, length, ended in _search(config, networks, rounds, epochs, bool(finals))
    ]
    seeds, recipe = config["final"]["seeds"], config["final"]["train"]
    both = config["final"].get("use_search_split", False)
    tested = {(line["network"], line["seed"]) for line in finals}
    return search + [
        Stage(
            final_phase(name, seed),
            f"final {name}, seed {seed + 1} of {seeds}",
            recipe["epochs"],
            images["train"] + images["search"] * both,
            True,
            (name, seed) in tested,
        )
        for name in networks
        for seed in range(seeds)
    ]


def _search(
    config: Record,
    networks: Sequence[str],
    rounds: Sequence[Record],
    epochs: Sequence[Record],
    complete: bool,
) -> Iterable[tuple[str, str, int, bool]]:
    """Phase, title, epochs of each of the search's trainings, and whether it has ended."""
    if networks == ["trained"]:
        return
    first = config["train"]["epochs"]
    if config.get("method", "network_adjustment") != "network_adjustment":
        begun = dict.fromkeys(line["phase"] for line in epochs)
        for phase in begun:
            if not phase.startswith("final_"):
                yield phase, f"search ({phase})", first, bool(rounds or complete)
        return
    later = config["search"]["warm_epochs"] if config["search"].get("warm_start") else first
    done = sum(map(is_reallocation, rounds))
    count = done if complete else config["search"]["rounds"]  # it may have stopped early
    for index in range(count):
        length = later if index else first
        yield round_phase(index), f"round {index + 1} of {count}", length, index < done


def forecast(
    trainings: Sequence[Stage], rounds: Iterable[Record], epochs: Iterable[Record]
) -> Forecast:
    """How far the trainings have come, and how long the rest takes at their speed.

    Args:
      trainings: of `stages`.
      rounds, epochs: as there.
    """
    last = {line["phase"]: line for line in epochs}
    done = [s.epochs if s.ended else _epoch(last, s) for s in trainings]
    work = [s.epochs * s.images for s in trainings]
    share = math.fsum(d * s.images for d, s in zip(done, trainings, strict=True))
    speeds = {final: _speed(trainings, last, final) for final in (False, True)}
    besides = [_besides(line) for line in rounds if is_reallocation(line)]
    aside = math.fsum(besides) / len(besides) if besides else 0.0
    own = any(s.phase.startswith("round_") for s in trainings if not s.final)
    left = 0.0
    for stage, ended in zip(trainings, done, strict=True):
        # Trainings of rounds and final ones are alike; those of other methods' searches aren't.
        speed = speeds[stage.final] or (speeds[not stage.final] if own else None)
        remaining = (stage.epochs - ended) * stage.images
        if speed is None and remaining:
            left = math.nan
            break
        left += remaining * (speed or 0) + (aside if not stage.final and not stage.ended else 0)
    unfinished = [s for s in trainings if not s.ended]
    return Forecast(
        _now(unfinished[0], _epoch(last, unfinished[0])) if unfinished else "writing the result",
        share / sum(work) if sum(work) else 0.0,
        None if math.isnan(left) or not last else left,
    )


def duration(seconds: float) -> str:
    """In words: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def clock(moment: datetime.datetime, now: datetime.datetime) -> str:
    """A time of day, and the day where it is another: "18:05 UTC", "28 Nov 09:30 UTC"."""
    return moment.strftime("%H:%M %Z" if moment.date() == now.date() else "%d %b %H:%M %Z")


def _epoch(last: dict[str, Record], stage: Stage) -> int:
    return min(last.get(stage.phase, {}).get("epoch", 0), stage.epochs)


def _speed(trainings: Sequence[Stage], last: dict[str, Record], final: bool) -> float | None:
    """Seconds for one image."""
    begun = [s for s in trainings if s.final == final and s.phase in last]
    images = sum(last[s.phase]["epoch"] * s.images for s in begun)
    return math.fsum(last[s.phase].get("seconds", 0) for s in begun) / images if images else None


def _besides(line: Record) -> float:
    """Seconds of a round beside its training."""
    parts = line.get("seconds", {})
    return math.fsum(s for part, s in parts.items() if part not in ("train", "compile_hidden"))


def _now(stage: Stage, epoch: int) -> str:
    if epoch < stage.epochs:
        return f"{stage.title}, epoch {epoch + 1} of {stage.epochs}"
    return f"{stage.title}, trained; {'testing' if stage.final else 'measuring'}"
