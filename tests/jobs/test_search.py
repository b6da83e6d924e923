"""The whole loop on digits: files, resume, kills, what others take from a finished run."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from furs_jax.data import load_dataset
from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.jobs import harness
from furs_jax.jobs.dispatch import do
from furs_jax.jobs.search import search
from furs_jax.jobs.vectors import initial_network, start_vector
from furs_jax.machine.sealed import read_json
from furs_jax.methods.network_adjustment import layers_in_round
from furs_jax.options.parse import parse
from furs_jax.run.context import derived_seed
from furs_jax.widths.sites import choose_sites
from tests import ROOT
from tests.small_runs import EPOCHS, OPTIONS, content, small_config, timeless

# They share a run and what it compiled.
pytestmark = pytest.mark.xdist_group("search")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, cache):
    """A run from the command line: its folder, result and output."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    process = _start(workdir, cache)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return workdir, read_json(workdir / "result.json"), output


def test_a_run_s_files_agree_with_each_other(finished):
    workdir, result, _ = finished
    files = content(workdir)
    assert files["result.json"] == timeless(result)
    assert result["seconds"].keys() == {"search", "final"}
    told = [json.loads(line)["seconds"] for line in (workdir / "rounds.jsonl").open()]
    waited = sum(s["train"] + s["furs"] + s["compile"] for s in told)
    assert result["seconds"]["search"] == pytest.approx(waited, abs=1e-3)
    epochs = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    last = [e["seconds"] for e in epochs if "searched" in e["phase"] and e["epoch"] == EPOCHS]
    assert result["seconds"]["final"] == pytest.approx(np.mean(last), abs=1e-3)
    rounds = files["rounds.jsonl"]
    assert [r["round"] for r in rounds] == [0, 1]
    assert rounds[1]["channels"] == rounds[0]["next_channels"]
    assert result["searched"]["channels"] == rounds[1]["next_channels"]
    assert result["original"]["channels"] == rounds[0]["channels"]
    budget = result["budget"]
    assert budget == result["original"]["macs"] == rounds[0]["macs"]
    for record in rounds:
        assert [record["increased"], record["decreased"]] == list(choose_sites(record["furs"], 2))
        # A few channels at six sites are too coarse for a thousandth.
        assert 0 <= budget - record["next_macs"] <= 0.005 * budget
        assert record["next_channels"] != record["channels"]
        assert all(len(record[k]) == 6 for k in ("furs", "furs_stderr", "drop_rates"))
    epochs = [(r["phase"], r["epoch"]) for r in files["metrics.jsonl"]]
    phases = ["round_00", "round_01"]
    phases += [f"final_{n}_{s}" for n in ("original", "searched") for s in (0, 1)]
    assert epochs == [(phase, epoch) for phase in phases for epoch in range(1, EPOCHS + 1)]
    watched = [(r["phase"], r["epoch"]) for r in files["metrics.jsonl"] if "furs" in r]
    assert watched == [(phase, epoch) for phase in phases[:2] for epoch in (3, 6)]
    for name in ("original", "searched"):
        scores = [seed["top1"] for seed in result[name]["seeds"]]
        assert result[name]["top1"][0] == pytest.approx(np.mean(scores))
        assert len(scores) == 2
    assert set(os.listdir(workdir / "checkpoints")) == set(phases)


def test_a_finished_run_answers_at_once(finished, monkeypatch, capsys):
    workdir, result, output = finished
    monkeypatch.setattr(harness, "prepare", None)
    assert search(small_config(cpu_devices=2), workdir) == result
    table = capsys.readouterr().out.strip()
    assert "difference" in table
    assert output.strip().endswith(table)


def test_another_config_s_workdir_is_refused(finished):
    workdir, *_ = finished
    before = content(workdir)
    with pytest.raises(WorkdirError, match=r"config.furs.draws \(2 there, 3 here\)"):
        search(small_config(**{"furs.draws": 3, "cpu_devices": 2}), workdir, quiet=True)
    assert content(workdir) == before


def test_a_run_stores_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = mock.Mock(side_effect=WorkdirError)
    monkeypatch.setattr(harness, "Workdir", opened)
    config = small_config(**{"init_from": "c", "data.name": "idx:d"})
    with pytest.raises(WorkdirError):
        search(config, "w", quiet=True)
    stored = opened.call_args.args[1]
    assert stored["init_from"] == f"{tmp_path}/c"
    assert stored["data"]["name"] == f"idx:{tmp_path}/d"
    assert config.init_from == "c"  # the caller's stays as it is


def test_layers_in_a_round_follow_the_schedule():
    options = small_config().reallocate
    options.num_layers, options.num_layers_decay = 6, 0.5
    assert [layers_in_round(options, r) for r in range(14)] == [
        max(round(6 - 0.5 * r), 0) for r in range(14)
    ]
    assert layers_in_round(options, 13) == 0


def test_derived_seeds_are_all_different():
    seeds = [derived_seed(s, p, i) for s in range(5) for p in (1, 2, 3) for i in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def _start(workdir: pathlib.Path, cache: pathlib.Path) -> subprocess.Popen:
    options = [f"--config.{key}={value}" for key, value in OPTIONS.items()]
    flags = ["--config=configs/digits.py", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "furs_jax.main", *flags, f"--workdir={workdir}"],
        cwd=ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_ten_kills_change_nothing(finished, cache, tmp_path):
    """SIGKILL at ten random instants: every file ends as that of a run never stopped."""
    whole = content(finished[0])
    rng = random.Random(0)
    kills, runs = 0, 0
    while kills < 10 or runs == 0:
        run = _start(tmp_path / "w", cache)
        # The table of the network's layers ends with its total: now the work begins.
        output = "".join(iter(run.stdout.readline, "")) if kills == 10 else _until(run, "total")
        try:
            assert run.wait(timeout=rng.uniform(0, 4) if kills < 10 else None) == 0, output
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            kills += 1
            continue
        assert content(tmp_path / "w") == whole
        runs += 1
        os.rename(tmp_path / "w", tmp_path / f"finished{runs}")


def _until(process: subprocess.Popen, start: str) -> str:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(start):
            break
    return "".join(lines)


def test_a_checkpoint_is_evaluated_measured_and_trained_on(finished, tmp_path, capsys):
    workdir, result, _ = finished
    checkpoint = str(workdir / "checkpoints" / "final_searched_1")
    config = small_config(init_from=checkpoint, mode="evaluate")
    found = do(parse(config), tmp_path)
    scores = result["searched"]["seeds"][1]
    assert found["channels"] == result["searched"]["channels"]
    assert [found[k] for k in ("top1", "loss")] == pytest.approx(
        [scores[k] for k in ("top1", "loss")], rel=1e-4
    )
    assert f"top-1 {100 * scores['top1']:.2f}%" in capsys.readouterr().out

    measured = do(parse(small_config(init_from=checkpoint, mode="furs")), tmp_path)
    assert len(measured["furs"]) == 6
    assert measured["draws"] == OPTIONS["furs.draws"]
    names = load_network_names(capsys.readouterr().out)
    order = np.argsort(-np.array(measured["furs"]))
    assert names == [
        initial_network(small_config(), load_dataset("digits"))[0].net.site_names[i] for i in order
    ]

    # Fine-tuned for no more than a step's worth of learning rate, it stays what it was.
    config = small_config(
        **{"init_from": checkpoint, "mode": "train", "final.seeds": 1, "final.train.epochs": 1,
           "final.train.learning_rate": 1e-9, "final.train.end_learning_rate": 0.0,
           "final.train.dropout": 0.0}
    )  # fmt: skip
    tuned = do(parse(config), tmp_path / "tuned")["trained"]
    assert tuned["channels"] == result["searched"]["channels"]
    assert tuned["seeds"][0]["top1"] == pytest.approx(scores["top1"], abs=0.05)


def load_network_names(table):
    rows = [line.split() for line in table.splitlines()]
    return [row[0] for row in rows if row and row[0].startswith("stage")]


def test_a_vector_is_taken_from_another_run_s_result(finished, tmp_path):
    workdir, result, _ = finished
    config = small_config(channels_from=str(workdir / "result.json"))
    cost, budget = initial_network(config, load_dataset("digits"))
    net = cost.net
    assert list(start_vector(config, cost, budget)) == result["searched"]["channels"]
    config.channels = net.channels
    with pytest.raises(ConfigError, match="not both"):
        start_vector(config, cost, budget)
    config.channels, config.channels_from = None, str(workdir / "metrics.jsonl")
    with pytest.raises(ConfigError, match="is no run's result.json"):
        start_vector(config, cost, budget)
    config.channels_from, config.init_from = None, str(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no such folder"):
        start_vector(config, cost, budget)
