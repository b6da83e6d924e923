"""When a training is saved or stops: by a clock that stands still, and by another process."""

import dataclasses

import jax
import numpy as np
import pytest

from furs_jax.errors import StoppedError
from furs_jax.machine import hosts
from furs_jax.machine.stop import Stop
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.training import train
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer
from tests.training.test_step import RECIPE, random_split, random_task


@pytest.mark.parametrize(
    ("seconds", "after_epoch", "within"), [(0.0, 0, 60), (10.0, 10, 60), (300.0, 300, 300)]
)
def test_it_is_saved_after_an_epoch_and_within_when_it_is_also_a_minute_ago(
    seconds, after_epoch, within, monkeypatch
):
    now = 1000.0
    monkeypatch.setattr(train.time, "monotonic", lambda: now)

    class Saved:
        def save(self, step, state, record):
            saved.append(step)

    saved: list[int] = []
    saver = train._Saver(Saved(), seconds, Stop())
    for start in (1000.0, 5000.0):
        for ago in (0, 1, 9, 10, 59, 60, 299, 300):
            now = start + ago
            assert saver.is_due() == (ago >= after_epoch)
            assert saver.is_due(within_epoch=True) == (ago >= within)
            assert saver.pause() == (train.Pause.SAVE if ago >= within else train.Pause.NONE)
        now = 5000.0
        saver.save(None, {"step": 1})
    assert saved == [1, 1]
    assert not train._Saver(None, 0.0, Stop()).is_due()  # there is nowhere to save


def _untrained(net, steps):
    """A trainer whose steps do nothing, of so many in an epoch."""
    task, recipe = random_task(net, 1), dataclasses.replace(RECIPE, epochs=2)

    def init(seed):
        return TrainState(step=0, seed=seed, params=np.zeros(1), batch_stats={}, opt_state={})

    def step(state, batch):
        return state.replace(step=state.step + 1), {"loss": 1.0, "accuracy": 0.5}

    split = random_split(steps * recipe.batch_size)
    return Trainer(task, net.channels, recipe, split, init, None, step, CrossEntropy())


def test_a_stop_that_another_process_asks_for_stops_this_one_at_the_same_step(tiny, monkeypatch):
    own, done = [], []

    def most_urgent(devices):
        def ask(asked):
            own.append(asked)
            return train.Pause.STOP if len(own) == 13 else asked  # of the other, at step 13

        return ask

    monkeypatch.setattr(train.hosts, "most_urgent", most_urgent)
    # It is known when its step is fetched, which so many later ones have been queued behind.
    known = 13 + train._IN_FLIGHT
    with pytest.raises(StoppedError, match=f"another process; .* after step {known}") as error:
        train.train(_untrained(tiny, 40), 0, on_step=done.append)
    assert error.value.status == 143
    assert done == list(range(known + 1))
    assert set(own) == {train.Pause.NONE}


def test_the_most_urgent_of_all_processes_counts():
    largest = hosts._largest(tuple(jax.devices()))
    for asked in ([0] * 8, [0, 0, 0, 2, 0, 1, 0, 0], [1] + [0] * 7):
        assert int(largest(np.array(asked, np.int32))) == max(asked)
