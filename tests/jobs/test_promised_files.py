"""What a run writes, counts and prints."""

import contextlib
import re

import jax

from furs_jax.jobs import dispatch, harness
from furs_jax.jobs.search import search
from furs_jax.machine.sealed import unseal
from furs_jax.networks.recording import record_network
from furs_jax.options import parse as options_lib
from furs_jax.options.parse import parse
from furs_jax.run import phases
from tests import ROOT
from tests.jobs.recorded import DATA, Training, small, workdir_lines

REFERENCE = (ROOT / "docs" / "REFERENCE.md").read_text()


def _named(file: str) -> set[str]:
    """The fields that the table of a run's folder names."""
    (row,) = (line for line in REFERENCE.splitlines() if line.startswith(f"| `{file}` |"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_a_run_s_files_hold_what_the_readme_says(recording, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "record_network", record_network)
    folder = tmp_path / "w"
    result = recording.search(folder, channels=(12, 8, 8, 8, 8, 8))
    net = recording.of(Training)[0].trainer.task.net
    with_errors = {f"{name}_stderr" for name in ("furs", "loss_increase", "accuracy_drop")}
    for record in workdir_lines(folder, "rounds"):
        assert len(_named("rounds.jsonl")) > 15
        assert set(record) == _named("rounds.jsonl") | with_errors | {"round", "step_scale"}
        assert (record["macs"], record["params"]) == (
            net.macs(record["channels"]),
            net.params(record["channels"]),
        )
        assert record["next_macs"] == net.macs(record["next_channels"]) <= result["budget"]
    config = unseal((folder / "config.json").read_text())
    assert {"forward"} == _named("result.json") & {"forward"} & set(result)
    begun = {"channels", "budget", "network", "data", "finals", "tables"}
    assert set(config) == {"config", *begun, "versions", "devices"}
    assert config["budget"] == {"most": result["budget"], "unit": "MACs", "limits": {}}
    images = {split: len(getattr(DATA, split).labels) for split in ("train", "search", "test")}
    known = {"mean": [0.5], "std": [0.25], "class_names": [], "eval_crop": 1.0}
    assert len(config["data"].pop("digests")) == 3
    assert config["data"] == {**known, "images": images}
    assert config["finals"] == ["original", "start", "searched"]
    assert dict(options_lib.flat(config["config"])).keys() == options_lib.OPTIONS.keys()
    assert tuple(config["channels"]) == recording.of(Training)[0].trainer.channels
    assert config["network"]["original"]["macs"] == result["original"]["macs"]
    assert len(config["devices"]) == len(jax.devices())
    for name in ("original", "start", "searched"):
        entry = result[name]
        assert (entry["macs"], entry["params"]) == (
            net.macs(entry["channels"]),
            net.params(entry["channels"]),
        )
        assert [set(seed) for seed in entry["seeds"]] == [{"seed", "top1", "top5", "loss"}] * 2
        assert entry["top1"] == [0.5, 0.0]
        assert entry["top5"] == [0.9, 0.0]
    for difference in ("difference", "difference_from_start"):
        assert result[difference] == {"top1": [0.0, 0.0], "top5": [0.0, 0.0]}
    phases = [line["phase"] for line in workdir_lines(folder, "metrics")]
    assert phases == [training.phase for training in recording.of(Training)]
    finals = workdir_lines(folder, "finals")
    assert [(line["network"], line["seed"]) for line in finals] == [
        (name, seed) for name in ("original", "start", "searched") for seed in (0, 1)
    ]
    assert unseal((folder / "result.json").read_text()) == result


def test_macs_that_were_spent_are_counted(recording, tmp_path):
    result = recording.search(tmp_path / "w", **{"train.epochs": 5, "final.train.epochs": 3})
    per_round = [
        3 * r["macs"] * 5 * (96 // 16) * 16 for r in workdir_lines(tmp_path / "w", "rounds")
    ]
    assert result["search_macs"] == sum(per_round)
    # A backward pass costs two forward ones; 136 images make 17 batches of 8.
    assert result["final_macs"] == 3 * result["searched"]["macs"] * 3 * 17 * 8


def test_the_first_training_is_traced(recording, tmp_path, monkeypatch):
    traces = []

    def traced(folder, on_step):
        traces.append(folder)
        return contextlib.nullcontext(on_step)

    monkeypatch.setattr(phases, "traced", traced)
    trace = str(tmp_path / "trace")
    recording.search(tmp_path / "w", profile=trace)
    assert traces == [trace, *[None] * 6]
    traces.clear()
    dispatch.do(parse(small(mode="train", profile=trace)), tmp_path / "t")
    assert traces == [trace, None]


def test_what_draws_bought_is_said(recording, tmp_path, capsys):
    for draws, said in (("auto", 2), (5, 0)):
        options = {"furs.draws": draws, "search.rounds": 2}
        recording.separation = 0.5
        search(small(**options), tmp_path / str(draws))
        assert capsys.readouterr().out.count("draws: more would not tell") == said


def test_quiet_prints_nothing_and_others_do(recording, tmp_path, capsys):
    recording.search(tmp_path / "w")
    assert capsys.readouterr().out == ""
    search(small(), tmp_path / "loud")
    assert "searched" in capsys.readouterr().out
