"""The command line, as a process of its own."""

import os
import subprocess
import sys

import pytest

from furs_jax.machine.devices import best_cpu_devices
from furs_jax.machine.programs import CompileClock
from tests import ROOT


def run(*arguments: str, cwd=ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "furs_jax.main", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/digits.py"], "--workdir="),
        (["--config=configs/digits.py:smok", "--workdir={w}"], "there is only 'smoke'"),
        (["--config=configs/digits.py", "--workdir={w}", "--config.furs.drawz=3"], "drawz"),
        (["--config=configs/digits.py", "--workdir={w}", "--config.furs.draws=x"], "draws"),
        (["--config=configs/nothing.py", "--workdir={w}"], "configs/nothing.py"),
        (["--config=configs/digits.py", "--workdir={w}", "--config.network=vgg"], "known are"),
    ],
)
def test_mistakes_get_one_clear_line(tmp_path, arguments, message):
    result = run(*(a.format(w=tmp_path / "w") for a in arguments))
    assert result.returncode != 0
    assert message in result.stderr
    assert result.stderr.startswith("furs_jax: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert not (tmp_path / "w" / "config.json").exists()


def test_imagenet_missing_is_said_at_once(tmp_path):
    result = run("--config=configs/r18.py", f"--workdir={tmp_path}/w")
    assert result.returncode == 1
    assert "'imagenet2012' is not prepared" in result.stderr
    assert "download_and_prepare" in result.stderr


def test_the_compile_clock_counts_nested_spans_once():
    clock = CompileClock()
    event = "/jax/core/compile/jaxpr_trace_duration"
    clock("/jax/other", 0.0, 100.0)
    for start, end in ((1.0, 2.0), (3.0, 4.0), (0.5, 5.0), (6.0, 8.0)):
        clock(event, start, end)
    assert clock.seconds == pytest.approx(4.5 + 2.0)


@pytest.mark.parametrize(
    ("cores", "batch_sizes", "devices"),
    [(2, [128, 64], 2), (6, [128, 64], 4), (3, [128], 2), (64, [128], 16), (2, [7], 1), (8, [], 8)],
)
def test_cpu_devices_divide_every_batch(cores, batch_sizes, devices):
    assert best_cpu_devices(cores, batch_sizes) == devices
