"""A found vector that is to keep to a latency is timed, and narrowed where it doesn't."""

import statistics
from collections.abc import Sequence
from typing import Any

from furs_jax.jobs.forward_time import forward_times
from furs_jax.machine import hosts
from furs_jax.run.context import Run
from furs_jax.training.distill import ORIGINAL
from furs_jax.widths.budget import fit_to_budget

Channels = tuple[int, ...]

_ATTEMPTS = 8
_FURTHER = 0.995  # of what would just do, since times differ from turn to turn
_ENOUGH = 0.98  # of what it may take: no other network is tried that might take more


def within_measured(run: Run, found: Channels) -> Channels:
    """The found vector, or one of its proportions that keeps to what is measured, when measured.

    A table predicts latency to some percent. So where budget or a limit is one the found network
    and the original are timed in turn, and where it takes longer than it may the budget is lowered
    by as much, and then halfway back where that leaves much unused. Without a budget given the
    original's own time is what it may take.

    measured.jsonl holds the times of each attempt, by which a run goes on as it would have.
    """
    given = run.options.cost.budget
    allowed = {"budget": given} if run.cost.is_measured else {}
    allowed |= {name: most for name, cost, most in run.cost.limits if cost.is_measured}
    if not allowed:
        return found
    tried, best = [found], {}
    while len(tried) <= _ATTEMPTS:
        vector = tried[-1]
        record = _measured(run, len(tried) - 1, vector)
        own, original = record["searched_ms"], record["original_ms"]
        over = max(record["ratio"] if m is None else own / m for m in allowed.values())
        run.console.print(
            f"measured in turn: found {own:.4g} ms, original {original:.4g} ms, {over:.3f} times "
            "what it may take"
        )
        best[over] = (share := _used(run, vector), vector)
        within = max((o for o in best if o <= 1), default=None)
        if within is not None and (len(tried) == 1 or within >= _ENOUGH):
            break
        slow = min(s for o, (s, _) in best.items() if o > 1)
        fast = max((s for o, (s, _) in best.items() if o <= 1), default=None)
        share = share * _FURTHER / over if fast is None else (fast + slow) / 2
        following = _narrowed(run, found, share)
        if fast is not None and following in tried:
            break
        tried.append(following)
    if within is None:
        run.console.print(f"after {_ATTEMPTS} attempts it still takes longer than it may")
    return best[min(best) if within is None else within][1]


def _used(run: Run, vector: Channels) -> float:
    """The share of budget or limit that is predicted, of what is measured the largest."""
    used = [run.cost.of(vector) / run.budget] if run.cost.is_measured else []
    return max(used + [c.of(vector) / most for _, c, most in run.cost.limits if c.is_measured])


def _measured(run: Run, attempt: int, vector: Channels) -> dict[str, Any]:
    """The attempt's line of the journal."""
    journal = run.workdir.measured
    if attempt == len(journal.read()):
        journal.append({"channels": list(vector), **_times(run, vector)})
    record = journal.read()[attempt]
    if record["channels"] != list(vector):
        raise journal.damaged(attempt + 1, f"it is not of {list(vector)}")
    return record


def _times(run: Run, vector: Sequence[int]) -> dict[str, Any]:
    """ms of a forward pass and their ratio, medians, by the first host's clock."""
    net, size = run.task.net, run.options.cost.batch_size
    nets = {ORIGINAL: net, "searched": net.of(vector)}
    with run.console.waiting("timing the found network"):
        seconds = hosts.from_first(lambda: forward_times(run.task, nets, size)["seconds"])
    ms = {f"{name}_ms": 1000 * size * statistics.median(own) for name, own in seconds.items()}
    # Of one turn, so that other work on the machine meets both.
    turns = zip(seconds["searched"], seconds[ORIGINAL], strict=True)
    return {**ms, "ratio": statistics.median(own / original for own, original in turns)}


def _narrowed(run: Run, found: Channels, share: float) -> Channels:
    cost, budget = run.cost.on(run.task.net), run.budget
    if cost.is_measured:
        budget = share * budget
    cost.limits = tuple(
        limit._replace(most=share * limit.most) if limit.cost.is_measured else limit
        for limit in cost.limits
    )
    return fit_to_budget(run.task.net, found, budget, cost=cost, **run.bounds._asdict())
