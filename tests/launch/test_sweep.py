"""Sweeps: what is run, resumed, submitted and gathered."""

import csv
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from furs_jax.jobs.settings import Setting
from launch import sweep
from tests import ROOT
from tests.fake_runs import FAST_COMPILATION
from tests.launch.tiny_sweep import OPTIONS, plan_of, planned


def command(workdir, *arguments):
    return [sys.executable, "launch/sweep.py", *OPTIONS, f"--workdir={workdir}", *arguments]


def run(workdir, *arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, *arguments),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def inodes(folder: pathlib.Path) -> dict[str, tuple]:
    files = [path for path in sorted(folder.rglob("*")) if path.name != ".lock"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_killed_sweep_goes_on_and_runs_nothing_twice(
    tmp_path, tmp_path_factory, monkeypatch, capsys
):
    cache = str(tmp_path_factory.mktemp("cache"))
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "XLA_FLAGS": FAST_COMPILATION}
    first, second = (tmp_path / f"seed={seed}" for seed in (0, 1))
    started = subprocess.Popen(
        command(tmp_path, "--sweep.seed=0,1"), cwd=ROOT, env=environment, start_new_session=True
    )
    while not (second / "config.json").exists():  # the first has finished, the second has begun
        assert started.poll() is None, (tmp_path / "seed=0.log").read_text()
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert not (second / "result.json").exists()
    whole = inodes(first)
    assert str(first / "result.json") in whole

    again = run(tmp_path, "--sweep.seed=0,1", **environment)
    assert again.returncode == 0, again.stderr
    assert re.findall(r"seed=\d: \w+", again.stdout) == ["seed=1: goes", "seed=1: finished"]
    assert inodes(first) == whole
    rows = list(csv.DictReader((tmp_path / "report" / "table.csv").read_text().splitlines()))
    assert [row["source"].partition(",")[0] for row in rows] == ["seed=0"] * 2 + ["seed=1"] * 2
    for row, (path, name) in zip(
        rows, [(p, n) for p in (first, second) for n in ("original", "searched")], strict=True
    ):
        result = json.loads((path / "result.json").read_text())
        assert float(row["top1"]) == pytest.approx(result[name]["top1"][0], abs=1e-6)
    assert (tmp_path / "report" / "accuracy.svg").exists()

    all_runs = inodes(first) | inodes(second)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    sweep.main([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0,1"])
    assert "2 settings, 2 finished" in capsys.readouterr().err
    assert inodes(first) | inodes(second) == all_runs

    # Other options than those of the runs there are refused, whatever they would run.
    with pytest.raises(SystemExit, match=r"differs in config.train.epochs \(1 there, 2 here\)"):
        sweep.main([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0", "--config.train.epochs=2"])

    # What is finished is neither printed nor submitted.
    sweep.main([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0,1,2", "--print"])
    (line,) = capsys.readouterr().out.splitlines()
    words = shlex.split(line)
    assert words[:3] == ["bash", "launch/run.sh", "--config=configs/digits.py"]
    assert words[-1] == f"--workdir={tmp_path}/seed=2"


def test_a_failed_run_is_told_and_the_others_are_run(tmp_path, monkeypatch, capsys):
    finished = []

    def execute(self, setting):
        setting.log.parent.mkdir(parents=True, exist_ok=True)
        setting.log.write_text("much\nfurs_jax: disk full\n")
        finished.append(setting.name)
        return int(setting.name == "seed=0")

    monkeypatch.setattr(sweep.LocalRunner, "_execute", execute)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit, match="1 of 3 failed: seed=0"):
        sweep.main([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0,1,2"])
    assert finished == ["seed=0", "seed=1", "seed=2"]
    assert "seed=0: failed: furs_jax: disk full" in capsys.readouterr().out


def test_a_busy_run_is_waited_for(tmp_path, monkeypatch, capsys):
    states = iter(["new", "running", "running", "finished"])
    monkeypatch.setattr(Setting, "state", lambda _: next(states))
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    sweep.main([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0"])
    assert capsys.readouterr().out.count("waiting for it") == 1
    assert next(states, None) is None


def test_a_sweep_told_to_end_tells_its_runs_and_waits(tmp_path, monkeypatch):
    begun, told = [], threading.Event()

    class Process:
        def __init__(self, command, **_):
            begun.append(command[-1])
            os.kill(os.getpid(), signal.SIGTERM)

        def wait(self):
            assert told.wait(60)
            return 1

        def terminate(self):
            told.set()

    monkeypatch.setattr(subprocess, "Popen", Process)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="interrupted; the same command goes on"):
            sweep.main([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0,1"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert begun == [f"--workdir={tmp_path}/seed=0"]


def test_parallel_runs_get_gpus_of_their_own(tmp_path, monkeypatch):
    seen = []

    class Process:
        def __init__(self, *_, env, **__):
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def wait(self):
            time.sleep(0.2)
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    options = sweep.parse([*OPTIONS, f"--workdir={tmp_path}", "--sweep.seed=0,1"])
    assert sweep.LocalRunner(2).run(plan_of(options)) == []
    assert sorted(seen) == ["4,6", "5,7"]


def test_what_lies_in_the_project_is_given_to_sky_as_there(tmp_path):
    (setting,) = planned(tmp_path, "--sweep.seed=1", f"--config.init_from={ROOT}/runs/a/c")
    (setting_elsewhere,) = planned(tmp_path, "--sweep.seed=1", "--config.init_from=/runs/a/c")
    for one, path in ((setting, "runs/a/c"), (setting_elsewhere, "/runs/a/c")):
        command_ = sweep.sky_command(one, [])
        given = shlex.split(command_[command_.index("--env") + 1].removeprefix("ARGUMENTS="))
        assert given[0] == "--config=configs/digits.py"
        assert f"--config.init_from={path}" in given


STAND_IN = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(sys.argv) + chr(10))
sys.exit(int(os.environ.get("STATUS", 0)))
"""


def submitted(tmp_path, program, *arguments, **environment):
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    (programs / program).write_text(STAND_IN.format(python=sys.executable))
    (programs / program).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    environment |= {"PATH": path, "RECORD": str(tmp_path / "record")}
    result = run(tmp_path / "budgets", *arguments, **environment)
    record = tmp_path / "record"
    lines = record.read_text().splitlines() if record.exists() else []
    return result, [json.loads(line) for line in lines]


def test_slurm_gets_a_job_for_each_setting(tmp_path):
    arguments = ("--sweep.seed=0,1", "--slurm=--partition=gpu --gpus-per-node=4")
    result, calls = submitted(tmp_path, "sbatch", *arguments)
    assert result.returncode == 0, result.stderr
    assert len(calls) == 2
    for seed, call in enumerate(calls):
        assert call[1:6] == [
            f"--job-name=budgets/seed={seed}",
            "--dependency=singleton",
            f"--output={tmp_path}/budgets/seed={seed}.log",
            "--partition=gpu",
            "--gpus-per-node=4",
        ]
        assert call[6:8] == ["launch/slurm.sbatch", "--config=configs/digits.py"]
        assert call[-2:] == [f"--config.seed={seed}", f"--workdir={tmp_path}/budgets/seed={seed}"]
    assert (tmp_path / "budgets").is_dir()  # or Slurm could not write the log


def test_sky_gets_a_managed_job_for_each_setting(tmp_path):
    arguments = ("--sweep.width_multiplier=0.5", "--sky=--env BUCKET=mine --gpus H100:8")
    result, calls = submitted(tmp_path, "sky", *arguments)
    assert result.returncode == 0, result.stderr
    (call,) = calls
    assert call[1:6] == ["jobs", "launch", "--yes", "--detach-run", "--name"]
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", call[6])
    assert call[-5:] == ["--env", "BUCKET=mine", "--gpus", "H100:8", "launch/sky.yaml"]
    given = shlex.split(call[call.index("--env") + 1].removeprefix("ARGUMENTS="))
    widths = [argument for argument in given if argument.startswith("--config.width_multiplier")]
    assert widths == ["--config.width_multiplier=0.5"]
    assert given[-1] == "--workdir=/runs/budgets/width_multiplier=0.5"


def test_a_refused_submission_is_one_line(tmp_path):
    result, calls = submitted(tmp_path, "sbatch", "--sweep.seed=0,1", "--slurm", STATUS="2")
    assert result.returncode == 1
    assert "sbatch refused seed=0 with exit status 2" in result.stderr
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/digits.py", "--workdir=w"], "nothing to sweep"),
        (["--config=configs/no.py", "--workdir=w", "--sweep.seed=1"], "no config file"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.sed=1"], "sed"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.seed=1,x"], "seed"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.seed=1,1"], "two settings"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.epochs=1"], "config.train.epochs"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.seed=1,-1"], "seed=-1 must be"),
        (["--config=configs/digits.py", "--workdir=gs://w", "--sweep.seed=1"], "mount the bucket"),
        (["--config=configs/digits.py", "--wokrdir=w", "--workdir=w"], "did you mean --workdir?"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.seed"], "needs a value"),
        (
            ["--config=configs/digits.py", "--workdir=w", "--seed=1"],
            "'--seed=1' is no option; did you mean --sweep.seed",
        ),
        (["--workdir=w"], "--config"),
        (["--config=configs/digits.py", "--workdir=w", "--parallel=0"], "at least 1"),
        (["--config=configs/digits.py", "--workdir=w", "--sweep.seed=1", "--sky"], "not installed"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = [a.replace("--workdir=w", f"--workdir={tmp_path}/w") for a in arguments]
    with pytest.raises(SystemExit, match=r"\Afurs_jax: .*\Z") as error:
        sweep.main(arguments)
    assert message in str(error.value)
    assert not (tmp_path / "w").exists()
