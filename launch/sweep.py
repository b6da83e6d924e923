"""Runs a config with many settings, and compares the results.

    bash launch/run.sh sweep --config=configs/digits.py --workdir=runs/budgets \
        --sweep.width_multiplier=0.5,0.8,1.0 [--config.seed=1 ...] [--parallel=2]

Every combination of the values is a run in a folder of its own below --workdir. Without --sweep,
the config file's `sweep()` says what to run; it yields dictionaries of flat overrides:

    def sweep():
        for width in (0.5, 0.8, 1.0):
            yield {"width_multiplier": width, "train.epochs": 20}

The same command again runs only what has not finished, goes on with what was stopped, and writes
one table and a plot of accuracy against MACs of all into WORKDIR/report. Each run's output is in
WORKDIR/SETTING.log.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configs and furs_jax, as python -m has it in the project's folder

from furs_jax import cli, config_files, paths  # noqa: E402
from furs_jax.errors import ConfigError, FursError  # noqa: E402
from furs_jax.jobs.settings import Setting, plan, split_values  # noqa: E402
from furs_jax.options.parse import nearest  # noqa: E402
from furs_jax.options.schema import OPTIONS  # noqa: E402

POLL_SECONDS = 2.0


class LocalRunner:
    """Runs settings on this machine, a few at a time.

    With at least as many GPUs in CUDA_VISIBLE_DEVICES as run at a time, each run gets its share.
    """

    def __init__(self, parallel: int):
        self._parallel = parallel
        self._processes: set[subprocess.Popen] = set()
        self._stopped = threading.Event()
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        shares = [",".join(gpus[i::parallel]) for i in range(parallel)]
        self._gpus = shares if len(gpus) >= parallel > 1 else []

    def run(self, settings: Sequence[Setting]) -> list[str]:
        """Runs all that have not finished; returns the names of those that failed.

        Interrupted, or told to end, it tells its runs, which save and end, and waits for them.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with ThreadPoolExecutor(self._parallel) as pool:
            try:
                done = [pool.submit(self._run_one, setting) for setting in settings]
                ended = [future.result() for future in done]
            except KeyboardInterrupt:
                self._stopped.set()
                for process in list(self._processes):
                    process.terminate()
                raise
        return [setting.name for setting, ok in zip(settings, ended, strict=True) if not ok]

    def _run_one(self, setting: Setting) -> bool:
        told = ""
        while not self._stopped.is_set():
            state = setting.state()
            if state != "running":
                break
            if state != told:
                print(f"{setting.name}: runs in another process; waiting for it", flush=True)
            told = state
            time.sleep(POLL_SECONDS)
        if self._stopped.is_set() or state == "finished":
            return True
        print(f"{setting.name}: {'goes on' if state == 'stopped' else 'starts'}", flush=True)
        start = time.monotonic()
        code = self._execute(setting)
        if self._stopped.is_set():
            return True
        said = "finished" if code == 0 else f"failed: {_last_line(setting.log)}"
        print(f"{setting.name}: {said} ({time.monotonic() - start:.0f} s)", flush=True)
        return code == 0

    def _execute(self, setting: Setting) -> int:
        environment = dict(os.environ)
        gpus = self._gpus.pop() if self._gpus else None
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        setting.log.parent.mkdir(parents=True, exist_ok=True)
        with open(setting.log, "a") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "furs_jax.main", *setting.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "PYTHONPATH": _with_root(environment.get("PYTHONPATH"))},
            )
        self._processes.add(process)
        if self._stopped.is_set():  # in between
            process.terminate()
        code = process.wait()
        self._processes.discard(process)
        if gpus is not None:
            self._gpus.append(gpus)
        return code


def _with_root(path: str | None) -> str:
    return os.pathsep.join(filter(None, (str(ROOT), path)))


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"see {log}"


def slurm_command(setting: Setting, options: Sequence[str]) -> list[str]:
    """Submits one setting; a second job of the same name waits for the first, then has no work."""
    name = f"{setting.workdir.parent.name}/{setting.name}"
    log = str(setting.log).replace("%", "%%")  # or Slurm puts the job's number there, say
    named = [f"--job-name={name}", "--dependency=singleton", f"--output={log}"]
    return ["sbatch", *named, *options, "launch/slurm.sbatch", *setting.arguments]


def sky_command(setting: Setting, options: Sequence[str]) -> list[str]:
    """Submits one setting as a managed job, whose folder lies below /runs in the bucket."""
    sweep = setting.workdir.parent.name
    name = re.sub(r"[^a-z0-9]+", "-", f"{sweep}-{setting.name}".lower()).strip("-")
    # The project's files are where the job runs; the rest has to be in the bucket.
    here = re.compile(rf"(?<=[=:]){re.escape(str(ROOT))}/")
    given = [here.sub("", argument, count=1) for argument in setting.arguments[:-1]]
    arguments = [*given, f"--workdir=/runs/{sweep}/{setting.name}"]
    submit = ["sky", "jobs", "launch", "--yes", "--detach-run", "--name", name]
    return [*submit, "--env", f"ARGUMENTS={shlex.join(arguments)}", *options, "launch/sky.yaml"]


def submit(settings: Sequence[Setting], options: argparse.Namespace) -> None:
    """Hands every setting to Slurm or SkyPilot.

    Raises:
      ConfigError: their program is missing or refuses.
    """
    slurm = options.slurm is not None
    make, extra = (slurm_command, options.slurm) if slurm else (sky_command, options.sky)
    for setting in settings:
        command = make(setting, shlex.split(extra))
        if shutil.which(command[0]) is None:
            raise ConfigError(f"{command[0]} is not installed here; --print shows plain commands")
        setting.log.parent.mkdir(parents=True, exist_ok=True)
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code != 0:
            raise ConfigError(f"{command[0]} refused {setting.name} with exit status {code}")
        print(f"{setting.name}: submitted", flush=True)


def gather(settings: Sequence[Setting], output: pathlib.Path) -> None:
    """Writes the table and the plot of all runs that have begun."""
    # Imported here, so that wrong options are reported without waiting for JAX.
    from furs_jax.report.__main__ import write_report
    from furs_jax.report.run_record import read_run

    runs = [read_run(s.workdir) for s in settings if (s.workdir / "config.json").exists()]
    if not runs:
        print("no run has begun yet")
        return
    try:
        for line in write_report(runs, output, each=False):
            print(f"furs_jax: note: {line}", file=sys.stderr)
    finally:
        page = (output / "report.md").read_text()
        print(f"\n{page.partition(chr(10) + '![')[0].rstrip()}\n\n{output}", flush=True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line, as everywhere
        sys.exit(f"furs_jax: {message}; --help tells more")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with `grid` (option -> values) and `overrides` ("--config.a=b")."""
    parser = _Parser("sweep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.allow_abbrev = False
    parser.add_argument("--config", required=True, help="the config file")
    parser.add_argument("--workdir", required=True, help="the sweep's folder")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="runs at a time")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--print", action="store_true", help="print the commands, run nothing")
    how.add_argument("--gather", action="store_true", help="only the table and the plot")
    for name in ("slurm", "sky"):
        text = f"submit to {name}, as in --{name}='OPTIONS OF ITS COMMAND'"
        how.add_argument(f"--{name}", nargs="?", const="", metavar="OPTIONS", help=text)
    try:
        rest, overrides = cli.split_overrides(arguments)
        rest, swept = cli.split_overrides(rest, "sweep")
        options, rest = parser.parse_known_args(rest)
        options.workdir = paths.resolve(options.workdir, "--workdir=")
    except ConfigError as error:
        parser.error(str(error))
    if rest:
        parser.error(f"{rest[0]!r} is no option; {_meant(rest[0])}")
    options.overrides = overrides
    options.grid = {option: split_values(text) for option, text in swept.items()}
    if not 1 <= options.parallel <= 1024:
        parser.error(f"--parallel={options.parallel} must be at least 1 and at most 1024")
    return options


def _meant(argument: str) -> str:
    """Which option a wrong one may stand for."""
    own = ("workdir", "parallel", "print", "gather", "slurm", "sky")
    known = [*own, *(f"{word}.{option}" for option in OPTIONS for word in ("sweep", "config"))]
    near = nearest(argument.partition("=")[0].lstrip("-"), known)
    if not near:
        return "options look like --sweep.seed=0,1"
    return f"did you mean {' or '.join(f'--{name}' for name in near)}?"


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    output = pathlib.Path(options.workdir) / "report"
    try:
        settings = plan(options.config, options.workdir, options.overrides, options.grid)
        states = {setting.name: setting.state() for setting in settings}
        todo = [s for s in settings if states[s.name] != "finished"]
        if options.gather:
            return gather(settings, output)
        print(f"{len(settings)} settings, {len(settings) - len(todo)} finished", file=sys.stderr)
        if options.print:
            script = os.path.relpath(ROOT / "launch" / "run.sh")
            for setting in todo:
                print(shlex.join(["bash", script, *setting.arguments]))
            return None
        if options.slurm is not None or options.sky is not None:
            return submit([s for s in todo if states[s.name] != "running"], options)
        failed = LocalRunner(options.parallel).run(todo)
        gather(settings, output)
    except FursError as error:
        sys.exit(f"furs_jax: {config_files.one_line(error)}")
    except KeyboardInterrupt:
        sys.exit("furs_jax: interrupted; the same command goes on with the sweep")
    if failed:
        sys.exit(f"furs_jax: {len(failed)} of {len(settings)} failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
