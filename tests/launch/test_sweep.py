"""Sweeps: what is run, resumed, submitted and gathered."""

import csv
import itertools
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

from furs_jax.errors import ConfigError
from launch import sweep
from tests import ROOT
from tests.fake_runs import FAST_COMPILATION

# As little as a run can be: random images, one round that changes nothing.
TINY = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "data.name": "random:8x8x1:10:64",
    "furs.method": "fisher",
    "reallocate.num_layers": 0,
    "search.rounds": 1,
    "train.epochs": 1,
    "final.train.epochs": 1,
    "final.seeds": 1,
    "checkpoint_seconds": 0.0,
    **dict.fromkeys(
        ("train.batch_size", "final.train.batch_size", "eval_batch_size", "furs.batch_size"), 16
    ),
}
OPTIONS = ["--config=configs/digits.py", *(f"--config.{k}={v}" for k, v in TINY.items())]


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
    monkeypatch.setattr(sweep.Setting, "state", lambda _: next(states))
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
    assert sweep.LocalRunner(2).run(sweep.plan(options)) == []
    assert sorted(seen) == ["4,6", "5,7"]


def test_every_combination_has_a_readable_folder(tmp_path):
    options = sweep.parse(
        [
            "--config=configs/digits.py",
            f"--workdir={tmp_path}",
            "--config.furs.draws=2",
            "--sweep.width_multiplier=0.5,1.0",
            "--sweep.train.epochs=3,4",
        ]
    )
    settings = sweep.plan(options)
    assert [setting.name for setting in settings] == [
        f"width_multiplier={width},train.epochs={epochs}"
        for width in ("0.5", "1.0")
        for epochs in (3, 4)
    ]
    last = settings[-1].config
    assert (last["width_multiplier"], last["train"]["epochs"], last["furs"]["draws"]) == (1.0, 4, 2)


CONFIG = """
from configs.digits import get_config
def sweep():
    for width in (0.5, 1.0):
        yield {"width_multiplier": width, "final.seeds": 2}
"""


def test_a_config_s_own_sweep_is_run_with_the_command_line_s(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CONFIG)
    options = sweep.parse([f"--config={file}:smoke", f"--workdir={tmp_path}/w", "--sweep.seed=0,1"])
    names = [setting.name for setting in sweep.plan(options)]
    assert names[1] == "width_multiplier=0.5,final.seeds=2,seed=1"
    assert len(names) == 4
    options.grid = {"final.seeds": ["3"]}
    with pytest.raises(ConfigError, match="final.seeds is swept by the config and on"):
        sweep.plan(options)


def planned(tmp_path, *arguments: str) -> list[sweep.Setting]:
    return sweep.plan(sweep.parse([*OPTIONS, f"--workdir={tmp_path}/w", *arguments]))


def test_folders_of_odd_and_long_values_have_names_of_their_own(tmp_path):
    long = ["(" + ",".join([width] * 108) + ")" for width in ("16", "16", "24")]
    long[1] = long[1].replace("16)", "17)")  # differs at its end only
    texts = [*long, "(8,12)", "(8,1,2)", "a/b", "a_b", "../..", "a'b\"c", "a b", "ä", "1,b=2", "1"]
    for first, second in itertools.product(texts, repeat=2):
        for swept in ({"channels": first}, {"a": first, "b": second}):
            name = sweep.folder_name(swept)
            assert re.fullmatch(r"[A-Za-z0-9_.,=~+-]+", name)
            assert len(f"{name}.log") <= 143
    names = {sweep.folder_name({"a": a, "b": b}) for a in texts for b in texts}
    assert len(names) == len(texts) ** 2
    assert sweep.folder_name({"a": "1,b=2"}) != sweep.folder_name({"a": "1", "b": "2"})
    many = {f"an_option_of_a_long_name_{i}": "1" for i in range(9)}
    assert len(sweep.folder_name(many)) < 143
    assert sweep.folder_name(many) != sweep.folder_name(many | {"an_option_of_a_long_name_8": "2"})

    vectors = [f"({','.join([width] * 6)})" for width in ("1000", "1001")]
    first, second = planned(tmp_path, f"--sweep.channels={','.join(vectors)}")
    assert first.config["channels"] == [1000] * 6
    assert first.name.startswith("channels=_1000,1000,")
    assert first.workdir != second.workdir


def test_the_same_setting_twice_is_refused(tmp_path):
    for values in ("0.5,0.5", "0.5,0.50"):
        with pytest.raises(ConfigError, match="two settings of the sweep are the same"):
            planned(tmp_path, f"--sweep.width_multiplier={values}")


def test_a_sweep_s_paths_are_of_the_folder_that_one_calls_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "mine.py").write_text(CONFIG)
    arguments = ["--config", "mine.py:smoke", "--workdir", "~/s", "--config.init_from", "a b"]
    options = sweep.parse([*arguments, "--sweep.kd.teacher", "original,t"])
    settings = sweep.plan(options)
    assert len(settings) == 4
    assert (
        settings[1].workdir == tmp_path / "home/s/width_multiplier=0.5,final.seeds=2,kd.teacher=t"
    )
    assert settings[1].arguments == (
        f"--config={tmp_path}/mine.py:smoke",
        f"--config.init_from={tmp_path}/a b",
        "--config.width_multiplier=0.5",
        "--config.final.seeds=2",
        f"--config.kd.teacher={tmp_path}/t",
        f"--workdir={settings[1].workdir}",
    )
    assert settings[0].config["kd"]["teacher"] == "original"


def test_what_lies_in_the_project_is_given_to_sky_as_there(tmp_path):
    (setting,) = planned(tmp_path, "--sweep.seed=1", f"--config.init_from={ROOT}/runs/a/c")
    (setting_elsewhere,) = planned(tmp_path, "--sweep.seed=1", "--config.init_from=/runs/a/c")
    for one, path in ((setting, "runs/a/c"), (setting_elsewhere, "/runs/a/c")):
        command_ = sweep.sky_command(one, [])
        given = shlex.split(command_[command_.index("--env") + 1].removeprefix("ARGUMENTS="))
        assert given[0] == "--config=configs/digits.py"
        assert f"--config.init_from={path}" in given


def test_values_are_split_outside_brackets():
    assert sweep.split_values("0.5,(1,2),[3,4]") == ["0.5", "(1,2)", "[3,4]"]


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
