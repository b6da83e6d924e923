"""When a training is saved, by a clock that stands still."""

import pytest

from furs_jax import train
from furs_jax.stop import Stop


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
