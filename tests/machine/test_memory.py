"""A process of many networks stays as large as after the first."""

import os
import pathlib
import types

import jax
import jax.numpy as jnp
import pytest

from furs_jax.bench import retrain
from furs_jax.machine.programs import CompileClock, release_programs
from furs_jax.methods import network_adjustment
from furs_jax.options.parse import parse
from furs_jax.training.step import data_parallel
from tests.small_runs import small_config

on_linux = pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="/proc is Linux's")


def resources() -> dict[str, int]:
    """What a process can run out of; memory in MiB. Zeros where the system doesn't tell."""
    if not os.path.exists("/proc/self/maps"):
        return dict.fromkeys(("mappings", "threads", "files", "memory"), 0)
    status = pathlib.Path("/proc/self/status").read_text()
    return {
        "mappings": pathlib.Path("/proc/self/maps").read_text().count("\n"),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
        "memory": int(status.split("VmRSS:")[1].split()[0]) // 1024,
    }


def _compile(width: int) -> None:
    """Programs of a network of some width, as every round has its own."""
    steps = [data_parallel(lambda w, x, k=k: jax.lax.psum(w @ x + k, "batch")) for k in range(4)]
    x = jnp.ones((jax.local_device_count(), width, 4))
    for step in steps:
        step(jnp.ones((4, width)), x)


def _stays_flat(seen: list[dict[str, int]]) -> None:
    for key, slack in {"mappings": 20, "threads": 2, "files": 0, "memory": 20}.items():
        counts = [one[key] for one in seen[1:]]  # what the first one starts stays
        assert max(counts) <= counts[0] + slack, (key, counts)


@on_linux
def test_rounds_leave_nothing_behind(monkeypatch):
    seen = []

    def one_round(run, records):
        _compile(10 + len(records))
        seen.append(resources())
        return {"next_channels": [len(records)], "next_parent": 0, "spread": 9.0}

    monkeypatch.setattr(network_adjustment, "_round", one_round)
    monkeypatch.setattr(network_adjustment, "round_line", lambda *_: "")
    split = types.SimpleNamespace(labels=range(100))
    batches = types.SimpleNamespace(split=split)
    monkeypatch.setattr(network_adjustment, "search_batches", lambda *_: batches)
    journal = types.SimpleNamespace(read=list, append=lambda record: None)
    run = types.SimpleNamespace(
        options=parse(small_config(**{"search.rounds": 5})),
        task=None,
        workdir=types.SimpleNamespace(rounds=journal),
        console=types.SimpleNamespace(print=lambda *_: None),
    )
    release_programs()
    network_adjustment.run_rounds(run)
    _stays_flat(seen)


@on_linux
def test_trainings_of_a_benchmark_leave_nothing_behind(monkeypatch):
    seen = []

    def make_trainer(task, channels, *_):
        _compile(*channels)
        seen.append(resources())

    scores = {"loss": 1.0, "top1": 0.5}
    monkeypatch.setattr(retrain, "make_trainer", make_trainer)
    monkeypatch.setattr(retrain, "Evaluator", lambda *_: lambda *_: scores)
    monkeypatch.setattr(retrain, "train", lambda *_: (types.SimpleNamespace(variables=None), None))
    dataset = types.SimpleNamespace(train=None, search=None)
    net = types.SimpleNamespace(macs=sum)
    run = types.SimpleNamespace(
        options=parse(small_config(**{"final.seeds": 1})),
        task=types.SimpleNamespace(dataset=dataset, net=net),
        console=types.SimpleNamespace(print=lambda *_: None),
    )
    journal = types.SimpleNamespace(read=list, append=lambda record: None)
    release_programs()
    for width in range(20, 24):
        retrain.retrain(run, (width,), None, journal, "a network")
    _stays_flat(seen)


def test_compile_time_within_compile_time_counts_once():
    clock, compiled = CompileClock(), "/jax/core/compile/backend_compile_duration"
    for start, end in ((1, 2), (3, 4), (0.5, 5), (6, 8)):
        clock(compiled, start, end)
    clock("/jax/something/else", 10, 20)
    assert clock.seconds == 4.5 + 2
    for number in range(1000):
        clock(compiled, 10 + number, 10.5 + number)
        assert clock.seconds == 6.5 + 0.5 * (number + 1)
    assert not clock._spans
