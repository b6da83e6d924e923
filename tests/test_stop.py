"""SIGTERM in mid-epoch: saved at once, and the resumed run is as one never stopped."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from furs_jax.checkpoint import Checkpoints
from furs_jax.errors import StoppedError
from furs_jax.stop import Stop
from tests.runs import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[1]
EPOCH = 100  # steps
OPTIONS = {
    "mode": "train",
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "data.name": "random:8x8x1:10:1000",
    "final.train.epochs": 3,
    "final.use_search_split": True,
    "final.train.batch_size": 10,
    "final.seeds": 1,
    "furs.batch_size": 10,
    "cpu_devices": 1,
}


def _start(workdir: pathlib.Path) -> subprocess.Popen:
    flags = [f"--config.{key}={value}" for key, value in OPTIONS.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "furs_jax.main", *flags, f"--workdir={workdir}"],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": FAST_COMPILATION},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _content(workdir: pathlib.Path) -> tuple:
    records = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    return metrics, (workdir / "result.json").read_text()


def _saved(workdir: pathlib.Path) -> dict:
    with Checkpoints(workdir / "checkpoints" / "final_trained_0") as checkpoints:
        return checkpoints.record()


def test_sigterm_in_mid_epoch_changes_nothing(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    undisturbed, process = _start(whole), _start(stopped)
    while not (stopped / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143, errors
    saved = _saved(stopped)
    assert saved["epoch"] == 1
    assert EPOCH < saved["step"] < 2 * EPOCH
    assert errors == (
        f"furs_jax: stopped by SIGTERM; the training is saved after step {saved['step']}, and the "
        "same command goes on\n"
    )
    for process in (undisturbed, _start(stopped)):
        output, errors = process.communicate()
        assert process.returncode == 0, errors
    assert str(stopped) in output
    assert _content(stopped) == _content(whole)


def test_a_signal_outside_of_a_training_stops_at_once():
    stop = Stop()
    with pytest.raises(StoppedError, match="SIGINT") as error:
        stop._handle(signal.SIGINT, None)
    assert error.value.status == 130
    stop, reached = Stop(), []

    def hold():
        with stop.held():
            stop._handle(signal.SIGTERM, None)
            reached.append(stop.asked)

    with pytest.raises(StoppedError, match="SIGTERM; all is saved"):
        hold()
    assert reached == [True]


def test_ctrl_c_twice_does_not_wait():
    stop = Stop()

    def hold():
        with stop.held():
            for _ in range(2):
                stop._handle(signal.SIGINT, None)

    with pytest.raises(StoppedError, match="SIGINT; nothing but the work in progress"):
        hold()
