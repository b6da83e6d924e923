"""What is to keep to a latency is timed in the end, narrowed, and goes on after a stop."""

import types

import numpy as np
import pytest

from furs_jax.costs import Cost, Limit
from furs_jax.costs.macs import Macs
from furs_jax.errors import ConfigError, DamagedError, WorkdirError
from furs_jax.jobs import compare, measured
from furs_jax.jobs.measured import within_measured
from furs_jax.machine.sealed import read_json
from furs_jax.networks import get_network
from furs_jax.run.console import Console
from furs_jax.run.folder import Files
from furs_jax.widths.bounds import Bounds
from furs_jax.widths.budget import fit_to_budget

NET = get_network("resnet8_cifar", 0.5, 10, image_shape=(8, 8, 1))
SLOWER = 1.07  # what is not the original takes so many times what is predicted


class Milliseconds(Cost):
    name, unit = "latency", "ms"
    is_measured = True

    def of(self, channels):
        return float(np.sum(np.square(channels))) / 1000


@pytest.fixture
def times(monkeypatch):
    """Times that are `SLOWER` than is predicted, of each call."""
    timed = []

    def forward_times(task, nets, batch_size):
        assert batch_size == 4
        timed.append({name: net.channels for name, net in nets.items()})
        seconds = {name: [ms_of(net.channels) / 4 / 1000] * 3 for name, net in nets.items()}
        return {"device": "cpu", "batch_size": 4, "seconds": seconds}

    monkeypatch.setattr(measured, "forward_times", forward_times)
    monkeypatch.setattr(compare, "forward_times", forward_times)
    return timed


def ms_of(channels, power=1.0):
    own, predicted = (Milliseconds(NET).of(c) for c in (NET.channels, channels))
    return own if tuple(channels) == NET.channels else SLOWER * own * (predicted / own) ** power


def run_in(folder, cost, given=None):
    return types.SimpleNamespace(
        options=types.SimpleNamespace(cost=types.SimpleNamespace(budget=given, batch_size=4)),
        cost=cost,
        budget=cost.of(NET.channels) if given is None else given,
        bounds=Bounds((1,) * 6, (np.inf,) * 6, 1),
        workdir=Files(folder),
        console=Console(quiet=True),
        task=types.SimpleNamespace(net=NET),
    )


def found_within(run):
    start = np.roll(NET.channels, 1)
    return fit_to_budget(NET, start, run.budget, cost=run.cost, **run.bounds._asdict())


@pytest.mark.parametrize("given", [None, 5.0])
def test_what_takes_longer_is_narrowed_until_it_doesn_t(given, times, tmp_path):
    run = run_in(tmp_path, Milliseconds(NET), given)
    allowed = Milliseconds(NET).of(NET.channels) if given is None else given
    found = found_within(run)
    assert run.cost.of(found) <= allowed < SLOWER * run.cost.of(found)
    vector = within_measured(run, found)
    assert 0.97 * allowed < SLOWER * run.cost.of(vector) <= allowed
    assert [one["original"] for one in times] == [NET.channels] * len(times)  # in turn with it
    assert times[-1]["searched"] == vector
    assert len(run.workdir.measured.read()) == len(times) == 2
    # Goes on by what was measured before, whatever it would be now.
    times.clear()
    assert within_measured(run_in(tmp_path, Milliseconds(NET), given), found) == vector
    assert times == []
    with pytest.raises(DamagedError, match="it is not of"):
        within_measured(run_in(tmp_path, Milliseconds(NET), given), NET.channels)
    journal = run.workdir.measured
    journal.append({"channels": [1], "searched_ms": 0.0, "original_ms": 1.0, "ratio": 1.0})
    with pytest.raises(DamagedError, match="a time is not above zero"):
        journal.read()


def test_turns_are_compared_with_their_own(monkeypatch, tmp_path):
    """Where something else ran in most of the original's turns."""

    def forward_times(task, nets, batch_size):
        return {"seconds": {"original": [1.0, 1.1, 9.0], "searched": [0.9, 1.0, 8.0]}}

    monkeypatch.setattr(measured, "forward_times", forward_times)
    run = run_in(tmp_path, Milliseconds(NET))
    assert within_measured(run, NET.channels) == NET.channels
    (line,) = run.workdir.measured.read()
    assert line["ratio"] == pytest.approx(0.9)
    assert (line["original_ms"], line["searched_ms"]) == (4400.0, 4000.0)


def test_it_is_narrowed_until_it_keeps_to_it_however_often(times, tmp_path, monkeypatch):
    """Where narrowing saves less than is predicted."""
    of = ms_of
    monkeypatch.setitem(globals(), "ms_of", lambda channels: of(channels, 0.5))
    run = run_in(tmp_path, Milliseconds(NET))
    vector = within_measured(run, found_within(run))
    assert len(times) > 3
    assert ms_of(vector) <= Milliseconds(NET).of(NET.channels)


def test_where_narrowing_saves_more_than_is_predicted_it_goes_halfway_back(
    times, tmp_path, monkeypatch
):
    of = ms_of
    monkeypatch.setitem(globals(), "ms_of", lambda channels: of(channels, 4.0))
    run = run_in(tmp_path, Milliseconds(NET))
    vector, allowed = within_measured(run, found_within(run)), Milliseconds(NET).of(NET.channels)
    measured_ms = [ms_of(one["searched"]) for one in times]
    assert measured_ms[0] > allowed > measured_ms[1]
    assert measured_ms[1] < 0.97 * allowed
    assert 0.97 * allowed < ms_of(vector) <= allowed
    assert ms_of(vector) == max(ms for ms in measured_ms if ms <= allowed)
    assert within_measured(run, found_within(run)) == vector  # by the journal


def test_of_budget_and_limit_the_lower_one_counts(times, tmp_path):
    cost = Milliseconds(NET)
    most = 0.9 * cost.of(NET.channels)
    cost.limits = (Limit("latency", Milliseconds(NET), most),)
    run = run_in(tmp_path, cost)
    vector = within_measured(run, found_within(run))
    assert 0.95 * most < SLOWER * cost.of(vector) <= most


def test_a_limit_is_kept_and_the_budget_used_beside_it(times, tmp_path):
    macs = Macs(NET)
    most = Milliseconds(NET).of(found_within(run_in(tmp_path, macs)))
    macs.limits = (Limit("latency", Milliseconds(NET), most),)
    run = run_in(tmp_path, macs)
    vector = within_measured(run, found_within(run))
    assert SLOWER * Milliseconds(NET).of(vector) <= most
    assert macs.of(vector) <= run.budget
    assert run.cost.limits[0].most == most  # the run's own is what it was


def test_other_resources_are_not_timed(times, tmp_path):
    run = run_in(tmp_path, Macs(NET))
    assert within_measured(run, NET.channels) == NET.channels
    assert times == []
    assert not run.workdir.measured.path.exists()


class Tabled(Milliseconds):
    """Known by a file, as a table is."""

    def digest(self):
        return DIGEST[0]

    def check(self, device, dtype):
        if (device, dtype) != ("cpu", "float32"):
            raise ConfigError(f"not measured for {device}, {dtype}")


DIGEST = ["a"]


def test_a_cost_that_is_not_known_here_is_refused_before_there_is_a_folder(recording, tmp_path):
    given = {"cost.resource": f"{__name__}:Tabled", "dtype": "bfloat16"}
    with pytest.raises(ConfigError, match="not measured for cpu, bfloat16"):
        recording.search(tmp_path / "w", **given)
    assert not (tmp_path / "w").exists()


def test_a_search_trains_what_keeps_to_it_and_tells_what_was_found(recording, times, tmp_path):
    given = {
        "width_multiplier": 0.5,
        "final.seeds": 1,
        "cost.resource": f"{__name__}:Tabled",
        "cost.batch_size": 4,
        "reallocate.num_layers": 2,
    }
    result = recording.search(tmp_path, **given)
    assert list(times[-1]) == ["original", "searched"]  # told by the batches that it is counted in
    most = Milliseconds(NET).of(NET.channels)
    assert result["budget"] == most
    assert SLOWER * result["searched"]["cost"] <= most < SLOWER * result["found"]["cost"]
    rounds = Files(tmp_path).rounds.read()
    assert result["found"]["channels"] == rounds[-1]["next_channels"]
    assert read_json(tmp_path / "config.json")["tables"] == {"latency": "a"}
    assert recording.search(tmp_path, **given) == result  # checked against the journals
    (tmp_path / "result.json").unlink()
    again = recording.search(tmp_path, **given)
    assert again["searched"] == result["searched"]
    (tmp_path / "result.json").unlink()
    DIGEST[0] = "b"
    try:
        with pytest.raises(WorkdirError, match="began with another cost.table than is there now"):
            recording.search(tmp_path, **given)
    finally:
        DIGEST[0] = "a"
