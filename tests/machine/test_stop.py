"""SIGTERM in mid-epoch: saved at once, and the resumed run is as one never stopped."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from furs_jax.errors import StoppedError
from furs_jax.machine.stop import Stop
from furs_jax.training.checkpoint import Checkpoints
from tests import ROOT
from tests.fake_runs import FAST_COMPILATION

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


def test_signals_wait_from_the_time_on_that_there_is_something_to_lose():
    stop = Stop()
    with pytest.raises(StoppedError, match="nothing but"), stop.held(at_once=False):
        stop._handle(signal.SIGTERM, None)
    stop, reached = Stop(), []

    def hold():
        with stop.held(at_once=False) as begin:
            begin()
            stop._handle(signal.SIGTERM, None)
            reached.append(stop.asked)

    with pytest.raises(StoppedError, match="all is saved"):
        hold()
    assert reached == [True]


def test_nothing_begins_after_a_signal_whose_exception_was_lost():
    stop, reached = Stop(), []
    with contextlib.suppress(StoppedError):
        stop._handle(signal.SIGTERM, None)

    def begin_late():
        with stop.held(at_once=False) as begin:
            begin()
            reached.append("begun")

    with pytest.raises(StoppedError, match="nothing but"), stop.held():
        reached.append("held")
    with pytest.raises(StoppedError, match="nothing but"):
        begin_late()
    assert not reached


# Each asks to stop where Python drops the exception, or in C++, where there is none.
LOST = {
    "destructor": """
class Dying:
    def __del__(self): ask()
Dying()
""",
    "weak reference": """
import weakref
class Dying: pass
dying = Dying()
kept = weakref.ref(dying, lambda _: ask())
del dying
""",
    "garbage collector": """
import gc
gc.callbacks.append(lambda phase, _: phase == "start" and gc.callbacks.clear() is None and ask())
gc.collect()
""",
    "generator": """
def generate():
    try: yield
    finally: ask()
started = generate()
next(started)
del started
""",
    "callback from C": """
import ctypes
ctypes.CFUNCTYPE(None)(ask)()
""",
    "bare except": """
try: ask()
except: pass
""",
    "in C": """
import ctypes
lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
print("begun")
lock(mutex)
lock(mutex)
""",
    "while Python's own end would take long": """
class Compilation:
    def __del__(self): os.write(2, b"still here")
sys.compilation = Compilation()
ask()
""",
    "at exit": """
import atexit
atexit.register(time.sleep, 60)
threading.Timer(0.1, ask).start()
sys.exit()
""",
}
PRELUDE = """
import os, signal, sys, threading, time
from furs_jax.machine import stop
stop._PATIENCE = 0.2
def ask():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
def work():
"""
EPILOGUE = """
    while True: time.sleep(0.01)
try:
    with stop.Stop().install(): work()
except BaseException as error:
    print(type(error).__name__)
    sys.exit(getattr(error, "status", 0))
"""


def test_a_signal_ends_the_process_wherever_it_lands():
    processes = {}
    for name, lines in LOST.items():
        if name == "in C" and sys.platform != "linux":
            continue  # a mutex of zeros is Linux's
        script = PRELUDE + textwrap.indent(lines, "    ") + EPILOGUE
        processes[name] = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    line = (
        "furs_jax: stopped by SIGTERM; nothing but the work in progress is lost, and the same "
        "command goes on\n"
    )
    ended = {"in C": "begun\n", "at exit": "SystemExit\n"}  # without an exception
    for name, process in processes.items():
        output, errors = process.communicate(timeout=60)
        expected = (143, ended.get(name, "StoppedError\n"), line if name in ended else "")
        assert (process.returncode, output, errors) == expected, name


def test_ctrl_c_twice_does_not_wait():
    stop = Stop()

    def hold():
        with stop.held():
            for _ in range(2):
                stop._handle(signal.SIGINT, None)

    with pytest.raises(StoppedError, match="SIGINT; nothing but the work in progress"):
        hold()
