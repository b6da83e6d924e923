"""Programs that are compiled in a thread: once, beside what is computed, and told apart."""

import contextlib
import subprocess
import sys
import threading
import time

import jax
import pytest

from furs_jax.data.batches import evaluation_batches
from furs_jax.furs.estimate import make_estimate
from furs_jax.jobs.search import search
from furs_jax.machine import hosts
from furs_jax.machine.programs import CompileClock, compile_clock
from furs_jax.training.distill import Distillation, Teacher
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.step import shard
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer
from tests import ROOT
from tests.conftest import random_variables
from tests.small_runs import small_config
from tests.training.test_step import RECIPE, random_split, random_task

COMPILED = "/jax/core/compile/backend_compile_duration"
STEP, INITIAL = "jit(_fun)", "jit(initial)"  # what JAX calls a mapped step and initial weights


@contextlib.contextmanager
def compiled():
    """The names of what is compiled meanwhile."""
    names = []

    def note(event, seconds, fun_name="", **_):
        if event == COMPILED:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("method", ["dropout", "fisher"])
def test_what_was_compiled_ahead_is_not_compiled_again(tiny, devices, method):
    task, split = random_task(tiny, devices), random_split(48)
    trainer = make_trainer(task, tiny.channels, RECIPE, split)
    evaluate = Evaluator(task, tiny.channels)
    estimate = make_estimate(
        tiny, tiny.channels, preprocess=task.preprocess, devices=task.devices, method=method
    )
    batches = list(evaluation_batches(split, 16))
    state = trainer.start(0)
    with compile_clock() as clock:
        before = clock.seconds

        def compile_ahead():
            variables = trainer.abstract().variables
            evaluate.compile(variables, split)
            estimate.compile(variables, batches)

        with clock.ahead(compile_ahead):
            batch = {"image": split.images[:16], "label": split.labels[:16]}
            state, _ = trainer.step(state, shard(batch, devices))
        assert clock.hidden > 0
        assert clock.seconds >= before
        with compiled() as programs:
            evaluate(state.variables, split)
            estimate(state.variables, batches, 1, 0)
    assert STEP not in programs


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize(("how", "programs"), [("one", 1), ("two", 2)])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_training_that_was_compiled_ahead_compiles_nothing(tiny, devices, how, programs, taught):
    task = random_task(tiny, devices)._replace(step_programs=how)
    module = tiny.module(tiny.channels)
    teacher = Teacher(module, random_variables(tiny, tiny.channels, 5), 0.7, 4.0)
    objective = Distillation(0.1, teacher) if taught else None
    trainer = make_trainer(task, tiny.channels, RECIPE, random_split(48), objective)
    with compiled() as names:
        trainer.compile_init()
        trainer.compile()
    assert names.count(STEP) == programs
    assert names.count(INITIAL) == 1
    with compiled() as names:
        train(trainer, 0)
    assert not {STEP, INITIAL} & set(names)


def test_a_run_compiles_initial_weights_beside_the_step(tmp_path):
    threads = []

    def note(event, seconds, fun_name="", **_):
        if event == COMPILED and fun_name == INITIAL:
            threads.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(note)
    few = {"search.rounds": 1, "train.epochs": 1, "final.train.epochs": 1, "furs.every_epochs": 0}
    search(small_config(**few), tmp_path, quiet=True)
    jax.monitoring.unregister_event_duration_listener(note)
    assert threads == ["compile"] * 3  # a round, original and searched


@pytest.mark.parametrize("devices", [1, 8])
def test_a_training_s_step_is_compiled_once(tiny, devices, tmp_path):
    """Whatever its state comes from: initial weights, the step before, a checkpoint."""
    task = random_task(tiny, devices)
    trainer = make_trainer(task, tiny.channels, RECIPE, random_split(48))

    def stop(record):
        raise KeyboardInterrupt

    with compiled() as programs:
        with pytest.raises(KeyboardInterrupt):
            train(trainer, 0, tmp_path, on_epoch=lambda r: stop(r) if r["epoch"] == 2 else None)
        train(trainer, 0, tmp_path)
        train(trainer, 1)
    assert programs.count(STEP) == 1


def test_time_of_a_thread_beside_is_hidden_as_far_as_it_is_not_waited_for():
    clock = CompileClock()
    clock(COMPILED, 1.0, 3.0)

    def beside():
        clock(COMPILED, 10.0, 90.0)

    with clock.ahead(beside):
        pass
    assert clock.seconds == pytest.approx(2.0, abs=0.5)
    assert clock.hidden == pytest.approx(80.0, abs=0.5)
    with clock.ahead(lambda: 1 / 0, beside):  # whoever calls the program will meet the error
        pass
    assert clock.hidden == pytest.approx(160.0, abs=1.0)


def test_who_leaves_by_an_exception_waits_for_no_compilation():
    clock, ended = CompileClock(), threading.Event()
    with pytest.raises(KeyboardInterrupt), clock.ahead(ended.wait):
        raise KeyboardInterrupt
    ended.set()


def test_several_hosts_compile_nothing_ahead(monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    called = []
    with CompileClock().ahead(lambda: called.append(1)):
        pass
    assert called == []


DIVERGED = """
import threading, time
import jax, jax.numpy as jnp
from furs_jax.machine.programs import compile_clock
from furs_jax.machine.stop import Stop
begun, done = threading.Event(), threading.Event()
def f(x):
    for k in range(400): x = jnp.sin(x @ x) * k
    return x
lowered = jax.jit(f).lower(jnp.ones((4, 4)))
def compile_ahead():
    begun.set()
    lowered.compile()
    done.set()
with Stop().install(), compile_clock() as clock, clock.ahead(compile_ahead):
    begun.wait()
    time.sleep(0.1)
    print(done.is_set())
    raise ArithmeticError("diverged")
"""


def test_an_error_while_another_thread_compiles_ends_the_process_with_it():
    ended = subprocess.run(
        [sys.executable, "-c", DIVERGED], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (ended.returncode, ended.stdout) == (1, "False\n"), ended.stderr
    assert ended.stderr.endswith("ArithmeticError: diverged\n")


def test_a_span_tells_compiling_from_work():
    clock = CompileClock()
    clock(COMPILED, 1.0, 3.0)  # before it
    span = clock.span()
    now = time.monotonic()
    clock(COMPILED, now - 40.0, now)
    assert span.compiled == pytest.approx(40.0)
    assert span.worked == pytest.approx(-40.0, abs=0.5)  # it took no time
    clock.hidden += 5.0
    assert span.hidden == 5.0
    time.sleep(0.05)
    assert 0.05 <= span.worked + 40.0 < 0.5
    assert clock.span().compiled == 0
