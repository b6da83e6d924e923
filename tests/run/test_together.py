"""Trainings by one program: killed against never stopped, and against each of them alone."""

import contextlib
import signal

import jax
import numpy as np
import pytest

from furs_jax.errors import StoppedError
from furs_jax.machine.programs import CompileClock
from furs_jax.machine.stop import Stop
from furs_jax.networks.families.resnet import ResNet
from furs_jax.networks.network import Network
from furs_jax.options.parse import as_record, parse
from furs_jax.run import together
from furs_jax.run.console import Console
from furs_jax.run.context import Run
from furs_jax.run.folder import Workdir
from furs_jax.run.phases import is_trained, train_phase
from furs_jax.run.together import train_at_once
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.stacked import make_stacked_trainer
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer
from tests.small_runs import small_config
from tests.training.test_step import RECIPE, random_task

NET = Network("block", ResNet((3, 4), 3, (1,), num_classes=10), (8, 8, 1))
VECTORS, SEEDS, NAMES = [(3, 6), (5, 4)], [(7, 1), (7, 2)], ("round_01", "round_02")


def trainer_of(devices, programs):
    task = random_task(NET, devices)._replace(step_programs=programs)
    return make_stacked_trainer(task, VECTORS, RECIPE, task.dataset.train)


@pytest.fixture(scope="module")
def trainer():
    return trainer_of(2, "two")


@contextlib.contextmanager
def run_in(path, task, stop=None):
    options = parse(small_config())
    workdir = Workdir(path, as_record(options))
    workdir.start(as_record(options), {})
    given = workdir, Console(True), CompileClock(), stop or Stop()
    yield Run(options, task, None, 0.0, (), NET, None, *given)
    workdir.close()


def at_once(path, trainer, stop=None):
    """Trains both; all that is left, without timings, and whether the stack's checkpoint is."""
    with run_in(path, trainer.task, stop) as run:
        train_at_once(run, trainer, NAMES, "both", SEEDS)
        return left(run)


def left(run):
    kept = {}
    for name, vector in zip(NAMES, VECTORS, strict=True):
        assert is_trained(run, name, RECIPE.epochs)
        alone = make_trainer(run.task, vector, RECIPE, run.task.dataset.train)
        with Checkpoints(run.workdir.checkpoints / name, read_only=True) as checkpoints:
            record = {**checkpoints.record(), "seconds": 0}
            kept[name] = checkpoints.restore(alone.abstract()), record
    told = [{k: v for k, v in r.items() if k != "seconds"} for r in run.workdir.metrics.read()]
    names = {path.name for path in run.workdir.checkpoints.iterdir()}
    return kept, told, names


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    return at_once(tmp_path_factory.mktemp("whole") / "w", trainer)


def test_killed_and_resumed_is_never_stopped(trainer, whole, tmp_path, monkeypatch):
    """Within an epoch, and while the networks' own checkpoints are written."""
    stop, done = Stop(), []

    def step(state, batch):
        done.append(1)
        stop.signal = signal.SIGTERM if len(done) == 5 else stop.signal
        return trainer.step(state, batch)

    with pytest.raises(StoppedError, match="saved after step 5"):
        at_once(tmp_path / "w", trainer._replace(step=trainer.step._replace(run=step)), stop)

    with run_in(tmp_path / "w", trainer.task) as run:
        for name in NAMES:  # as a process that was killed before it saved
            line = {"phase": name, "epoch": 2, "step": 6, "loss": 9.0, "seconds": 1.0}
            run.workdir.metrics.append(line)

    class Killed(Exception):  # noqa: N818
        pass

    class Dying(Checkpoints):
        def save(self, *given):
            raise Killed

    def opened(folder, read_only=False):
        kind = Checkpoints if read_only or folder.name == NAMES[0] else Dying
        return kind(folder, read_only)

    monkeypatch.setattr(together, "Checkpoints", opened)
    with pytest.raises(Killed):
        at_once(tmp_path / "w", trainer)
    monkeypatch.undo()
    resumed = at_once(tmp_path / "w", trainer)
    assert resumed[1:] == whole[1:]
    assert resumed[2] == set(NAMES)
    assert [line["epoch"] for line in resumed[1]] == [1, 1, 2, 2]
    for name in NAMES:
        assert resumed[0][name][1] == whole[0][name][1]
        jax.tree.map(np.testing.assert_array_equal, resumed[0][name][0], whole[0][name][0])

    def fail(*_):
        raise AssertionError

    finished = trainer._replace(init=fail, step=trainer.step._replace(run=fail, compile=fail))
    assert at_once(tmp_path / "w", finished)[1:] == whole[1:]


def test_each_is_trained_as_alone_and_taken_for_it(trainer, whole, tmp_path):
    """Initial weights, images and dropout are its own: sums are taken in another order."""
    task = trainer.task
    with run_in(tmp_path / "w", task) as alone, run_in(tmp_path / "v", task) as both:
        train_at_once(both, trainer, NAMES, "both", SEEDS)
        for name, vector, seed in zip(NAMES, VECTORS, SEEDS, strict=True):
            own = make_trainer(task, vector, RECIPE, task.dataset.train)
            state, record = train_phase(alone, own, name, "one", seed)
            finished = own._replace(init=None, step=None)  # nothing is left to do
            found, stored = train_phase(both, finished, name, "one", seed)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, state
            )
            scores = Evaluator(task, vector)(found.variables, task.dataset.search)
            search = stored.pop("search")
            assert search == pytest.approx(scores, rel=1e-4)
            for told in (record, stored):
                del told["seconds"]
            assert stored == pytest.approx(record, rel=1e-4)
        expected = left(alone)[1]
        found = sorted(left(both)[1], key=lambda line: line["phase"])
        for line, own in zip(found, expected, strict=True):
            assert line.pop("phase") == own.pop("phase")
            assert line == pytest.approx(own, rel=1e-4)


def test_one_device_and_program_is_two(trainer):
    seeds = (4, 5)
    two, _ = train(trainer, seeds)
    one, _ = train(trainer_of(1, "one")._replace(init=trainer.init), seeds)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), one, two)
