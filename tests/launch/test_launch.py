"""The launchers' scripts, with stand-ins for gcloud, sbatch, srun and Python itself."""

import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import types
from unittest import mock

import pytest
import yaml

from tests import ROOT

# Makes the .venv that it is asked for, pretends to install, and "runs" furs_jax.
PYTHON = """#!/usr/bin/env bash
echo "python $*" >> "$RECORD"
echo "ids=${JAX_LOCAL_DEVICE_IDS:-} rank=${JAX_PROCESS_ID:-} of ${JAX_NUM_PROCESSES:-}" \
"at ${JAX_COORDINATOR_ADDRESS:-}" >> "$RECORD"
echo "at $PWD" >> "$RECORD"
case "$*" in
    "-m venv .venv")
        mkdir -p .venv/bin && cp "$0" .venv/bin/python
        echo 'PATH="$PWD/.venv/bin:$PATH"' > .venv/bin/activate
        ;;
    *furs_jax.main*)
        for argument in "$@"; do
            case "$argument" in --workdir=*) workdir=${argument#--workdir=} ;; esac
        done
        workdir=${workdir:-none}
        mkdir -p "$workdir/checkpoints" && echo "{}" | tee "$workdir/result.json" \
            > "$workdir/checkpoints/state"
        exit "${STATUS:-0}"
        ;;
esac
"""
# A VM is a home folder here; what is copied and run on it really is.
GCLOUD = """#!/usr/bin/env bash
echo "gcloud $*" >> "$RECORD"
[ "$1 $2 $3" = "compute tpus tpu-vm" ] && shift 3
case "$1" in
    describe) cat "$VM.state" || exit 1 ;;
    create) echo READY > "$VM.state" ;;
    delete) rm "$VM.state" ;;
    scp) cp "${2/#my-tpu:/$VM/}" "${3/#my-tpu:/$VM/}" ;;
    ssh)
        for argument in "$@"; do
            case "$argument" in --command=*) command=${argument#--command=} ;; esac
        done
        cd "$VM" && HOME="$VM" bash -c "$command"
        ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >> "$RECORD"
case "$*" in "python find"*) echo "$PYTHON_STAND_IN" ;; esac
"""
SRUN = """#!/usr/bin/env bash
echo "srun $*" >> "$RECORD"
shift && exec "$@"
"""


@pytest.fixture
def box(tmp_path):
    """A copy of the launchers, stand-ins first on the PATH, and their record."""
    project, programs, vm = (tmp_path / name for name in ("project", "bin", "vm"))
    shutil.copytree(ROOT / "launch", project / "launch")
    shutil.copy(ROOT / "setup.py", project)
    (project / "configs").mkdir()
    (project / "configs" / "x.py").touch()
    (vm / ".local" / "bin").mkdir(parents=True)
    programs.mkdir()
    for path, text in {
        programs / "python3": PYTHON,
        programs / "gcloud": GCLOUD,
        programs / "srun": SRUN,
        vm / ".local" / "bin" / "uv": UV,
    }.items():
        path.write_text(text)
        path.chmod(0o755)
    return Box(tmp_path, project)


class Box:
    def __init__(self, path: pathlib.Path, project: pathlib.Path):
        self.path, self.project, self.vm = path, project, path / "vm"
        self.environment = {
            "PATH": f"{path / 'bin'}:/usr/bin:/bin",
            "HOME": str(path),
            "RECORD": str(path / "record"),
            "VM": str(self.vm),
            "PYTHON_STAND_IN": str(path / "bin" / "python3"),
        }

    def run(self, *command: str, cwd=None, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", *map(str, command)],
            cwd=cwd or self.project,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def record(self, start: str = "") -> list[str]:
        file = self.path / "record"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.startswith(start)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ["--config=configs/x.py", "--workdir=w", "--workdir", "~/a b", "--config.a=b/c"],
            "-m furs_jax.main --config=configs/x.py --workdir=w --workdir ~/a b --config.a=b/c",
        ),
        (
            ["sweep", "--workdir=w", "--sweep.seed=0,1"],
            "{project}/launch/sweep.py --workdir=w --sweep.seed=0,1",
        ),
        (["report", "w", "/v", "--output=o"], "-m furs_jax.report w /v --output=o"),
        (["export", "w", "--format=onnx"], "-m furs_jax.export w --format=onnx"),
        (["bench", "headroom", "--workdir=w"], "-m furs_jax.bench headroom --workdir=w"),
        (["glyphs", "d", "--seed=1"], "-m furs_jax.data.glyphs d --seed=1"),
        ([], "-m furs_jax.main --config=configs/demo.py --workdir={project}/runs/demo"),
    ],
)
def test_run_sh_runs_python_where_it_is_called(box, given, expected):
    here = box.path / "it's here"
    here.mkdir()
    environment = {"CDPATH": f"{box.path}:{here}", "PYTHON": "../bin/python3"}
    script = os.path.relpath(box.project / "launch" / "run.sh", here)
    result = box.run(script, *given, cwd=here, **environment)
    assert result.returncode == 0, result.stderr
    assert box.record("python")[-1] == "python -P " + expected.format(project=box.project)
    assert box.record("at ")[-1] == f"at {here}"
    installed = [line for line in box.record() if "--editable" in line]
    extras = {**dict.fromkeys(("sweep", "report", "bench"), ".[report]"), "export": ".[export]"}
    extras["glyphs"] = ".[images]"
    extra = extras.get(given[0], ".") if given else "."
    assert installed[0].endswith(f"--editable {extra}")


def test_cdpath_does_not_lead_run_sh_astray(box):
    (box.path / "elsewhere" / "launch").mkdir(parents=True)
    result = box.run("launch/run.sh", "--workdir=w", CDPATH=str(box.path / "elsewhere"))
    assert result.returncode == 0, result.stderr
    assert box.record("at ")[-1] == f"at {box.project}"
    assert (box.project / "w").is_dir()


def test_a_script_beside_a_clone_imports_the_package(tmp_path):
    # README's first steps: git clone ... furs_jax; an editable install puts the clone on the path.
    (tmp_path / "furs_jax").symlink_to(ROOT)
    (tmp_path / "script.py").write_text(
        "import furs_jax; print(furs_jax.get_network('resnet18').name)"
    )
    command = [sys.executable, "script.py"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "furs_jax")}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout == "resnet18\n", result.stderr


def test_an_editable_install_puts_the_clone_on_the_path(monkeypatch):
    # Setuptools does so for packages in one folder that setup.py names, and else makes a finder,
    # which Python asks only after it has taken the clone's folder for the package.
    packaging = types.ModuleType("setuptools")
    packaging.find_packages, packaging.setup = lambda **_: [], mock.Mock()
    building = types.ModuleType("setuptools.command.build_py")
    building.build_py = object
    for module in (packaging, types.ModuleType("setuptools.command"), building):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    runpy.run_path(str(ROOT / "setup.py"))
    assert packaging.setup.call_args.kwargs["package_dir"] == {"": "."}


def tpu_vm(box, *arguments, **environment):
    return box.run("launch/tpu_vm.sh", *arguments, **{"ZONE": "us-central2-b", **environment})


def test_a_tpu_vm_is_made_used_fetched_from_and_deleted(box):
    arguments = ("my-tpu", "--config=configs/x.py", "--config.seed=1", "--workdir=../out/r18")
    options = {"CREATE": "v4-16", "SPOT": "1", "PROJECT": "mine", "DELETE": "1"}
    result = tpu_vm(box, *arguments, **options)
    assert result.returncode == 0, result.stderr
    calls = [line.removeprefix("gcloud compute tpus tpu-vm ") for line in box.record("gcloud")]
    assert [call.split()[0] for call in calls] == (
        ["describe", "create", "scp", "ssh", "ssh", "ssh", "scp", "delete"]
    )
    assert all("--zone=us-central2-b --project=mine --quiet" in call for call in calls)
    assert "--accelerator-type=v4-16 --version=tpu-ubuntu2204-base --spot" in calls[1]
    assert [call.count("--worker=all") for call in calls] == [0, 0, 1, 1, 1, 0, 0, 0]
    ran = f"--config=configs/x.py --config.seed=1 --workdir={box.vm}/furs_runs/r18"
    assert box.record("python -P") == [f"python -P -m furs_jax.main {ran}"]
    assert any(line.endswith("--editable .[tpu]") for line in box.record("python"))
    fetched = box.path / "out" / "r18"
    assert sorted(os.listdir(fetched)) == ["result.json"]  # no checkpoints unless asked


@pytest.mark.parametrize(
    ("workdir", "fetched"),
    [
        (["--workdir", "out/it's r 18"], "project/out/it's r 18"),
        (["--workdir=~/r 18"], "r 18"),
        (["--workdir=../-x"], "-x"),
    ],
)
def test_a_vm_s_results_come_to_any_folder(box, workdir, fetched):
    (box.path / "vm.state").write_text("READY\n")
    result = tpu_vm(box, "my-tpu", "--config=configs/x.py", *workdir)
    assert result.returncode == 0, result.stderr
    assert os.listdir(box.path / fetched) == ["result.json"]
    (ran,) = box.record("python -P -m furs_jax.main")
    assert ran.endswith(f"--workdir={box.vm}/furs_runs/{pathlib.Path(fetched).name}")


def test_a_failed_run_s_files_are_fetched_and_its_vm_kept(box):
    (box.path / "vm.state").write_text("READY\n")
    environment = {"STATUS": "3", "DELETE": "1", "CHECKPOINTS": "1"}
    result = tpu_vm(box, "my-tpu", "--config=configs/x.py", "--workdir=out", **environment)
    assert result.returncode == 3
    assert sorted(os.listdir(box.project / "out")) == ["checkpoints", "result.json"]
    assert not any(" delete " in line or " create " in line for line in box.record("gcloud"))


def test_a_preempted_vm_is_made_again(box):
    (box.path / "vm.state").write_text("PREEMPTED\n")
    assert "CREATE=" in tpu_vm(box, "my-tpu", "--workdir=out").stderr
    assert tpu_vm(box, "my-tpu", "--workdir=out", CREATE="v4-8").returncode == 0
    verbs = [line.split()[4] for line in box.record("gcloud")]
    assert verbs[1:4] == ["describe", "delete", "create"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--config=x"], {}, "give the VM's name first"),
        (["my-tpu", "--workdir=w"], {"ZONE": ""}, "set ZONE"),
        (["my-tpu", "--config=x"], {}, "give the run's folder"),
        (["my-tpu", "--config=x", "--workdir"], {}, "give the run's folder"),
        (["my-tpu", "--workdir=gs://b/w"], {}, "is an address"),
        (["my-tpu", "--workdir=w"], {}, "CREATE=v4-8 makes one"),
    ],
)
def test_tpu_vm_s_mistakes_are_one_line(box, arguments, environment, message):
    result = tpu_vm(box, *arguments, **environment)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (box.project / "w").exists()


@pytest.mark.parametrize(
    ("environment", "ids"),
    [
        ({"SLURM_GPUS_ON_NODE": "4"}, "0,1,2,3"),
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS_PER_NODE": "4"}, ""),
        ({"SLURM_GPUS_ON_NODE": "1"}, ""),
        ({}, ""),
    ],
)
def test_slurm_gives_every_process_its_gpus(box, environment, ids):
    result = box.run("launch/slurm.sbatch", "--config=configs/x.py", "--workdir=w", **environment)
    assert result.returncode == 0, result.stderr
    ran = "python -m furs_jax.main --config=configs/x.py --workdir=w"
    assert box.record("srun") == [f"srun --kill-on-bad-exit=1 {ran}"]
    assert box.record()[-2].startswith(f"ids={ids} ")
    assert any(line.endswith("--editable .[cuda13]") for line in box.record("python"))


def test_slurm_outside_the_project_says_so(box):
    result = box.run(box.project / "launch" / "slurm.sbatch", cwd=box.path)
    assert result.returncode == 1
    assert "project's folder" in result.stderr


@pytest.mark.parametrize(
    ("extras", "nodes", "found"),
    [
        ("cuda13", "2", "ids= rank=1 of 2 at 10.0.0.1:8476"),
        ("cuda13", "1", "ids= rank= of  at "),
        ("tpu", "2", "ids= rank= of  at "),
    ],
)
def test_sky_nodes_find_each_other(box, extras, nodes, found):
    task = yaml.safe_load((ROOT / "launch" / "sky.yaml").read_text())
    assert task["envs"]["BUCKET"] is None  # SkyPilot asks for it
    (box.project / "furs_env.sh").write_text(f"export FURS_EXTRAS={extras}\n")
    result = box.run(
        "-c",
        task["run"],
        ARGUMENTS=f"--config=configs/x.py '--config.a=(1, 2)' --workdir={box.path}/runs/r",
        SKYPILOT_NUM_NODES=nodes,
        SKYPILOT_NODE_RANK="1",
        SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2",
    )
    assert result.returncode == 0, result.stderr
    main = f"--config=configs/x.py --config.a=(1, 2) --workdir={box.path}/runs/r"
    assert box.record()[-3:-1] == [f"python -P -m furs_jax.main {main}", found]


def test_sky_s_setup_installs_for_the_device(box):
    task = yaml.safe_load((ROOT / "launch" / "sky.yaml").read_text())
    shutil.copy(box.vm / ".local" / "bin" / "uv", box.path / "bin")
    for device, extras in (("", "tpu"), ("nvidia-smi", "cuda13")):
        if device:
            shutil.copy(box.path / "bin" / "uv", box.path / "bin" / device)
        result = box.run("-c", task["setup"])
        assert result.returncode == 0, result.stderr
        assert any(line.endswith(f"--editable .[{extras}]") for line in box.record("python"))
