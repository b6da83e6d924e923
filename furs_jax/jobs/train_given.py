"""mode=train: the network of the given channels, by config.final; the test split is read."""

from typing import Any

from furs_jax.jobs.compare import check_finals, train_seeds
from furs_jax.jobs.harness import run_in_folder
from furs_jax.machine.stop import Stop
from furs_jax.methods import Method
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.run.tables import format_table, interval_note, score_cells

Record = dict[str, Any]

TRAINED = "trained"  # the network's name in journals and results


def perform(options: Options, workdir: str, stop: Stop | None = None) -> Record:
    """Trains the network of `channels` by config.final, and reads the test split."""
    names = [TRAINED]
    return run_in_folder(options, workdir, _train, _table, stop=stop, finals=lambda run: names)


def _train(run: Run) -> Record:
    check_finals(run, [TRAINED])
    entry = train_seeds(run, TRAINED, run.start, Method(), init_from=True)
    return {"mode": "train", TRAINED: entry}


def _table(result: Record) -> str:
    entry = result[TRAINED]
    row = ("trained", f"{entry['macs']:,}", f"{entry['params']:,}", *score_cells(entry))
    header = ("network", "MACs", "params", "top-1 %", "top-5 %")
    seeds = len(entry["seeds"])
    split = f"test split, {seeds} seed{'s' if seeds > 1 else ''}; {interval_note(seeds)}"
    return f"{format_table(header, [row])}\n{split}"
