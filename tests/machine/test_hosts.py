"""Two processes of two devices each: as one of four, and after one of them was killed."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from furs_jax.errors import ConfigError, HostsError, MissingExtraError
from furs_jax.machine import hosts
from furs_jax.machine.sealed import read_json
from tests import ROOT
from tests.fake_runs import FAST_COMPILATION
from tests.small_runs import timeless

OPTIONS = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "eval_batch_size": 64,
    "train.epochs": 3,
    "final.train.epochs": 1,
    "final.seeds": 1,
    "final.timed": False,
    "search.rounds": 1,
    "search.blocks": True,
    "reallocate.num_layers": 2,
    "reallocate.step": 0.5,
    "furs.draws": 2,
    "furs.images": 50,  # of 64: the last are of weight zero, in the second process
    "checkpoint_seconds": 0.0,
}


def _start(workdir: pathlib.Path, cache: pathlib.Path, devices: int, *flags: str):
    options = {**OPTIONS, "cpu_devices": devices}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "furs_jax.main", f"--workdir={workdir}", *flags),
            *(f"--config.{key}={value}" for key, value in options.items()),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": FAST_COMPILATION,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _start_two(workdir: pathlib.Path, cache: pathlib.Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = (f"--coordinator=localhost:{port}", "--num_processes=2", "--heartbeat_seconds=10")
    return [_start(workdir, cache, 2, *flags, f"--process_id={i}") for i in range(2)]


def _records(workdir: pathlib.Path, name: str) -> list[dict]:
    records = [json.loads(line) for line in (workdir / name).read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.mark.xdist_group("hosts")
def test_two_processes_are_as_one_and_go_on_after_a_kill(tmp_path):
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    cache = tmp_path / "cache"
    alone, *both = _start(one, cache, 4), *_start_two(two, cache)
    outputs = [process.communicate()[0] for process in (alone, *both)]
    assert [process.returncode for process in (alone, *both)] == [0, 0, 0], outputs
    assert "4 x cpu" in outputs[1]
    assert "cpu" not in outputs[2]  # only the first prints
    for name, fields in (
        ("metrics.jsonl", ("loss", "accuracy")),
        ("rounds.jsonl", ("furs", "search_loss", "search_accuracy", "channels", "next_channels")),
        ("rounds.jsonl", ("depths", "next_depths", "block_furs", "block_furs_stderr")),
        ("finals.jsonl", ("loss",)),
    ):
        for expected, found in zip(_records(one, name), _records(two, name), strict=True):
            for field in fields:
                # Sums of another order may turn a few images over.
                atol = 5e-3 if field.endswith("accuracy") else 1e-7
                np.testing.assert_allclose(found[field], expected[field], rtol=2e-3, atol=atol)

    both = _start_two(killed, cache)
    while not (killed / "metrics.jsonl").exists():
        assert both[0].poll() is None, both[0].communicate()
        time.sleep(0.01)
    os.kill(both[1].pid, signal.SIGKILL)
    for process in both:
        process.communicate()
        assert process.returncode != 0  # the other does not wait for ever
    assert len(_records(killed, "metrics.jsonl")) < OPTIONS["train.epochs"]
    again = _start_two(killed, cache)
    outputs = [process.communicate()[0] for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    for name in ("metrics.jsonl", "rounds.jsonl", "finals.jsonl"):
        assert _records(killed, name) == _records(two, name)
    results = [timeless(read_json(folder / "result.json")) for folder in (killed, two)]
    assert results[0] == results[1]


def _raise(error: BaseException):
    raise error


@pytest.mark.parametrize(
    ("error", "elsewhere"),
    [
        (ConfigError("no JSON"), ConfigError),
        (MissingExtraError("Images", "grain", "images"), MissingExtraError),
        (FileNotFoundError(2, "No such file", "x"), FileNotFoundError),
        (json.JSONDecodeError("no JSON", "x", 0), HostsError),
        (UnicodeDecodeError("utf8", b"x", 0, 1, "odd"), HostsError),
        (ZeroDivisionError(), HostsError),
        (KeyboardInterrupt(), HostsError),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_whatever_the_first_raises_ends_all(monkeypatch, error, elsewhere):
    sent = []  # what process 0 broadcasts, which the other then gets

    def send(value):
        sent.append(np.asarray(value))
        return sent[-1]

    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "is_first", lambda: True)
    monkeypatch.setattr(hosts.multihost_utils, "broadcast_one_to_all", send)
    with pytest.raises(type(error)) as first:
        hosts.from_first(lambda: _raise(error))
    assert first.value is error
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    monkeypatch.setattr(hosts.multihost_utils, "broadcast_one_to_all", lambda _: sent.pop(0))
    with pytest.raises(elsewhere) as other:
        hosts.from_first(lambda: pytest.fail("called in the second process"))
    assert str(error) in str(other.value)


def test_what_json_cannot_hold_ends_all(monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "is_first", lambda: True)
    monkeypatch.setattr(hosts.multihost_utils, "broadcast_one_to_all", np.asarray)
    with pytest.raises(TypeError, match="not JSON serializable"):
        hosts.from_first(object)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", 2, None), "together"),
        (("localhost", 2, 0), "host:port"),
        (("localhost:1", 2, 2), "below"),
    ],
)
def test_incomplete_flags_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        hosts.join(*given)


def test_one_process_joins_nobody(monkeypatch):
    for name in ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert not hosts.join(None, None, None)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(ConfigError, match="must be numbers"):
        hosts.join(None, None, None)


def test_what_differs_between_processes_ends_all(monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 3)
    digests = []
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", digests.append)
    for value in ({"seed": 0}, {"seed": 1}):
        with pytest.raises(TypeError):  # nothing is gathered yet
            hosts.agree("the config", value)
    own, other = digests
    for gathered, named in (
        ([own, own, own], None),
        ([own, other, own], "1"),
        ([other, own, own], "1, 2"),
    ):
        monkeypatch.setattr(hosts.multihost_utils, "process_allgather", lambda _, g=gathered: g)
        if named is None:
            hosts.agree("the config", {"seed": 0})
            continue
        with pytest.raises(HostsError, match=f"the config of process {named} is not that of"):
            hosts.agree("the config", {"seed": 0})
