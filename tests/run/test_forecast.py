"""How long a run still takes, against a run of even speed that is stopped at any place."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furs_jax.run.forecast import clock, duration, forecast, stages

IMAGES = {"train": 900, "search": 100, "test": 50}
NAMES = ["original", "searched"]


def config(rounds=3, warm=False):
    return {
        "method": "network_adjustment",
        "train": {"epochs": 4},
        "search": {"rounds": rounds, "warm_start": warm, "warm_epochs": 2},
        "final": {"seeds": 2, "train": {"epochs": 5}, "use_search_split": True},
    }


def story(rounds: int, warm: bool, speed: float, aside: float):
    """Every line that such a run writes, with the seconds from it to the end of the run."""
    lines, spent = [], 0.0
    for index in range(rounds):
        length = 2 if warm and index else 4
        for epoch in range(1, length + 1):
            seconds = epoch * speed * 900
            spent += speed * 900
            record = {"phase": f"round_{index:02}", "epoch": epoch, "seconds": seconds}
            lines.append(("epochs", record, spent))
        spent += aside
        seconds = {"train": 1.0, "furs": aside / 4, "compile": 3 * aside / 4, "compile_hidden": 9.0}
        record = {"round": index, "furs": [], "next_channels": [], "seconds": seconds}
        lines.append(("rounds", record, spent))
    for name in NAMES:
        for seed in range(2):
            for epoch in range(1, 6):
                seconds = epoch * speed * 1000
                spent += speed * 1000
                record = {"phase": f"final_{name}_{seed}", "epoch": epoch, "seconds": seconds}
                lines.append(("epochs", record, spent))
            lines.append(("finals", {"network": name, "seed": seed}, spent))
    return [(kind, record, spent - at) for kind, record, at in lines]


def after(lines, given_config):
    files = {kind: [r for k, r, _ in lines if k == kind] for kind in ("rounds", "epochs", "finals")}
    trainings = stages(given_config, NAMES, IMAGES, **files)
    return trainings, forecast(trainings, files["rounds"], files["epochs"])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.booleans(), st.floats(1e-4, 1e-2), st.floats(0, 50), st.floats(0.01, 1)
)
def test_what_is_left_is_what_it_takes(rounds, warm, speed, aside, share):
    """From the first round's end on; before, what a round takes besides isn't known."""
    lines = story(rounds, warm, speed, aside)
    count = max(round(share * len(lines)), 1)
    trainings, found = after(lines[:count], config(rounds, warm))
    assert len(trainings) == rounds + 4
    left = lines[count - 1][2]
    if count <= 4:
        left -= aside * rounds
    assert found.seconds == pytest.approx(left, rel=1e-6, abs=1e-6)


def test_the_share_grows_from_nothing_to_all():
    lines = story(3, True, 1e-3, 5.0)
    shares = [after(lines[:count], config(3, True))[1].share for count in range(len(lines) + 1)]
    assert (shares[0], shares[-1]) == (0.0, pytest.approx(1.0))
    assert shares == sorted(shares)


def test_what_is_done_at_present_is_said():
    lines = story(3, False, 1e-3, 5.0)
    said = [after(lines[:count], config())[1].now for count in (0, 2, 4, 5, 15, 19, 20, 21, 39)]
    assert said == [
        "round 1 of 3, epoch 1 of 4",
        "round 1 of 3, epoch 3 of 4",
        "round 1 of 3, trained; measuring",
        "round 2 of 3, epoch 1 of 4",
        "final original, seed 1 of 2, epoch 1 of 5",
        "final original, seed 1 of 2, epoch 5 of 5",
        "final original, seed 1 of 2, trained; testing",
        "final original, seed 2 of 2, epoch 1 of 5",
        "writing the result",
    ]


def test_nothing_is_promised_before_anything_is_known():
    assert after([], config())[1].seconds is None
    other = {**config(), "method": "tas"}
    begun = [("epochs", {"phase": "tas", "epoch": 1, "seconds": 9.0}, 0)]
    trainings, found = after(begun, other)
    assert (trainings[0].phase, trainings[0].epochs) == ("tas", 4)
    assert found.seconds is None  # a supernet's epoch tells nothing of a network's
    line = ("rounds", {"round": 0, "channels": [1], "seconds": {"train": 36.0}}, 0)
    final = ("epochs", {"phase": "final_original_0", "epoch": 1, "seconds": 2.0}, 0)
    assert after([*begun, line, final], other)[1].seconds == pytest.approx(19 * 2.0)


def test_a_search_that_stopped_early_has_no_more_rounds():
    lines = [line for line in story(2, False, 1e-3, 5.0) if line[0] != "epochs"]
    trainings, _ = after(lines, config(rounds=9))
    assert [stage.phase for stage in trainings][:3] == ["round_00", "round_01", "final_original_0"]


def test_times_in_words():
    told = [duration(seconds) for seconds in (0.4, 99, 100, 5900, 6000, 90_000)]
    assert told == ["0 s", "99 s", "2 min", "98 min", "1 h 40 min", "25 h 0 min"]
    now = datetime.datetime(2026, 1, 2, 23, 50, tzinfo=datetime.UTC)
    soon, later = (now + datetime.timedelta(minutes=m) for m in (5, 20))
    assert clock(soon, now) == "23:55 UTC"
    assert clock(later, now) == "03 Jan 00:10 UTC"
