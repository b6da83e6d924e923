"""What a run's trainings tell: how far they have come, their curves, and where the time went."""

import math
from typing import Any

from furs_jax.report.run_record import RunRecord
from furs_jax.run.forecast import Forecast, Stage, forecast, stages
from furs_jax.run.lines import final_phase

Record = dict[str, Any]

_PARTS = {
    "train": "training of the search",
    "furs": "measuring FURs",
    "slim": "slimming",
    "compile": "compiling in the search",
}


def stages_of(run: RunRecord) -> list[Stage]:
    """All trainings of a run, as far as they are known."""
    return stages(run.config, run.final_names(), run.images, run.lines, run.epochs, run.finals)


def forecast_of(run: RunRecord) -> Forecast:
    return forecast(stages_of(run), run.lines, run.epochs)


def curves(run: RunRecord, final: bool, key: str = "loss") -> dict[str, list[tuple[int, float]]]:
    """A metric of the training data by epoch: phase -> (epoch, value).

    Args:
      run: whose.
      final: of the final trainings, or of the search's.
      key: as in metrics.jsonl.
    """
    phases = {stage.phase for stage in stages_of(run) if stage.final == final}
    found: dict[str, list[tuple[int, float]]] = {}
    for line in run.epochs:
        if line["phase"] in phases and type(line.get(key)) in (int, float):
            found.setdefault(line["phase"], []).append((line["epoch"], line[key]))
    return found


def time_parts(run: RunRecord) -> dict[str, float]:
    """Seconds of what was done so far; testing and reading of data are in none."""
    parts: dict[str, float] = {}
    for line in run.lines:
        for part, seconds in line.get("seconds", {}).items():
            if part != "compile_hidden":  # beside other work
                title = _PARTS.get(part, part)
                parts[title] = parts.get(title, 0.0) + seconds
    last = {line["phase"]: line.get("seconds", 0.0) for line in run.epochs}
    for stage in stages_of(run):
        if not stage.final and not stage.ended and stage.phase in last:
            title = _PARTS["train"]
            parts[title] = parts.get(title, 0.0) + last[stage.phase]
    for name in run.final_names():
        phases = [final_phase(name, seed) for seed in range(run.config["final"]["seeds"])]
        seconds = math.fsum(last.get(phase, 0.0) for phase in phases)
        if seconds:
            parts[f"final trainings, {name}"] = seconds
    return parts
