"""What the lines of a run's journals hold: whether one can be a line at all, and what they say.

Each check raises ValueError with a reason. Whether a line follows from those before it is checked
where lines are made. Imports nothing that computes, so that a report can read a run.
"""

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

TIMED = ("train", "furs", "compile")  # parts of a round
PER_SITE = (  # of a round: numbers of every site
    "furs",
    "furs_stderr",
    "loss_increase",
    "loss_increase_stderr",
    "accuracy_drop",
    "accuracy_drop_stderr",
    "drop_rates",
)


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    """A line's "seconds", to milliseconds."""
    return {part: round(spent, 3) for part, spent in seconds.items()}


def round_phase(index: int) -> str:
    """The phase of a round's training, which its lines and its checkpoints are known by."""
    return f"round_{index:02}"


def final_phase(name: str, seed: int) -> str:
    """That of a network's training at the end."""
    return f"final_{name}_{seed}"


def pruned_phase(name: str, seed: int) -> str:
    """Of the smaller network that a training has ended as, where its method prunes."""
    return f"{final_phase(name, seed)}_pruned"


def check_epoch(record: Record) -> None:
    """A line of metrics.jsonl."""
    _need(record, phase=str, epoch=int)
    if not _is(float, record.get("seconds", 0)):
        raise ValueError("its seconds are no number")


def check_final(record: Record) -> None:
    """A line of finals.jsonl."""
    _need(record, network=str, seed=int, loss=float, top1=float, top5=float)
    for name in ("top1", "top5"):
        if not 0 <= record[name] <= 1:
            raise ValueError(f"{name} is {record[name]}, and no share")


def check_measured(record: Record) -> None:
    """A line of measured.jsonl."""
    times = ("searched_ms", "original_ms", "ratio")
    _need(record, channels=list, **dict.fromkeys(times, float))
    if not min(record[name] for name in times) > 0:
        raise ValueError("a time is not above zero")


def is_reallocation(record: Record) -> bool:
    """Whether a line of rounds.jsonl is Network Adjustment's; other methods write their own."""
    return not {"furs", "increased", "next_channels"}.isdisjoint(record)


def check_round(record: Record) -> None:
    """A line of rounds.jsonl."""
    _need(record, round=int)
    if not is_reallocation(record):
        return
    _need(record, macs=int, params=int, next_macs=int)
    vectors = [record.get(name) for name in ("channels", "next_channels")]
    for name, vector in zip(("channels", "next_channels"), vectors, strict=True):
        if not (_are(int, vector) and all(width > 0 for width in vector)):
            raise ValueError(f"{name} are no widths")
    sites = len(vectors[0])
    if "next_depths" in record:
        for name in ("depths", "next_depths"):
            if not (_are(int, record.get(name)) and all(n > 0 for n in record[name])):
                raise ValueError(f"{name} are no numbers of blocks")
    elif len(vectors[1]) != sites:
        raise ValueError(f"next_channels are {len(vectors[1])} widths for {sites} sites")
    for name in ("increased", "decreased"):
        chosen = record.get(name)
        if not (_are(int, chosen) and set(chosen) <= set(range(sites))):
            raise ValueError(f"{name} are no sites of {sites}")
    for name in PER_SITE:
        values = record.get(name)
        if (
            name in record
            and values is not None
            and not (_are(float, values) and len(values) == sites)
        ):
            raise ValueError(f"{name} are not {sites} numbers")
    if record.get("furs") is None:
        raise ValueError("it has no furs")
    seconds = record.get("seconds", dict.fromkeys(TIMED, 0))
    if not (isinstance(seconds, dict) and all(_is(float, seconds.get(part)) for part in TIMED)):
        raise ValueError(f"its seconds are not those of {', '.join(TIMED)}")


def best_round(rounds: Sequence[Record]) -> Record:
    """The line of the round whose network had the lowest loss on the search split."""
    return min(rounds, key=lambda record: record["search_loss"])


def selected(rounds: Sequence[Record], select: str) -> tuple[int, ...]:
    """The searched vector: the one after the last round, or the best one that was trained."""
    if select == "best":
        return tuple(best_round(rounds)["channels"])
    return tuple(rounds[-1]["next_channels"])


def depths_text(entry: Record) -> str:
    """The blocks in each stage of a vector's entry, as "1, 3, 2"; empty where it has none."""
    return ", ".join(map(str, entry.get("depths") or ()))


def selected_depths(rounds: Sequence[Record], select: str) -> list[int] | None:
    """The blocks in each stage of the searched network; None where they were not searched."""
    if select == "best":
        return best_round(rounds).get("depths")
    return rounds[-1].get("next_depths")


def _need(record: Record, **types: type) -> None:
    for name, kind in types.items():
        if not _is(kind, record.get(name)):
            what = {str: "text", int: "whole number", float: "number"}[kind]
            raise ValueError(f"its {name} is no {what}")


def _is(kind: type, value: Any) -> bool:
    """As JSON has it: a number without fraction may be a float, a truth value is no number."""
    allowed = (int, float) if kind is float else kind
    return isinstance(value, allowed) and not isinstance(value, bool)


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, Sequence) and all(_is(kind, value) for value in values)
