"""Searches on digits that take seconds: their config, and what they leave behind."""

import json
import pathlib

from configs import digits
from furs_jax.machine.sealed import read_json

EPOCHS = 8  # each checkpointed: a kill mostly falls between two of them
OPTIONS = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "train.epochs": EPOCHS,
    "final.train.epochs": EPOCHS,
    "final.seeds": 2,
    "final.timed": False,
    "furs.draws": 2,
    "furs.every_epochs": 3,
    "search.rounds": 2,
    "reallocate.num_layers": 2,
    "reallocate.step": 0.5,
    "checkpoint_seconds": 0.0,
    "cpu_devices": 2,
}


def small_config(**changes):
    config = digits.get_config()
    # The tests' own process has its eight devices already.
    config.update_from_flattened_dict({**OPTIONS, "cpu_devices": 0, **changes})
    return config


def content(workdir: pathlib.Path) -> dict:
    """All that a run leaves behind, without its timings."""
    files = {}
    for name in ("metrics.jsonl", "rounds.jsonl", "finals.jsonl"):
        records = [json.loads(line) for line in (workdir / name).read_text().splitlines()]
        files[name] = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    files["result.json"] = timeless(read_json(workdir / "result.json"))
    return files


def timeless(result: dict) -> dict:
    """What a search returns, without its timings."""
    return {key: value for key, value in result.items() if key not in ("seconds", "forward")}
