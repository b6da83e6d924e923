"""What an image takes each network, as a search measures it and tells it."""

import itertools

import pytest

from furs_jax.jobs import compare, forward_time
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.search import search
from furs_jax.methods import Method
from furs_jax.options.parse import parse
from furs_jax.run.tables import result_table
from furs_jax.widths.budget import fit_to_budget
from tests.fake_runs import fake_run
from tests.small_runs import small_config


class Equal(Method):
    """Equal widths, at once."""

    def search(self, run):
        equal = [max(run.start)] * len(run.start)
        return fit_to_budget(run.task.net, equal, run.budget, 1, cost=run.cost)


@pytest.fixture(scope="module")
def task():
    return prepare(parse(small_config())).task


@pytest.fixture
def clock(monkeypatch):
    """Time that only passes when a network is called: 3 s for each site's first channel."""
    now = [0.0]
    monkeypatch.setattr(forward_time.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(forward_time.jax, "block_until_ready", lambda x: x)
    order = []

    def forward(task, net, images):
        def call():
            order.append(net.channels)
            now[0] += 1e-3 * net.channels[0] * len(images)

        return call

    monkeypatch.setattr(forward_time, "_forward", forward)
    return order


def test_networks_take_turns_and_times_are_of_one_image(task, clock):
    net, narrow = task.net, task.net.of([2, *task.net.channels[1:]])
    found = forward_time.forward_times(task, {"original": net, "searched": narrow})
    turns = [channels for channels, _ in itertools.groupby(clock)]
    assert turns == [net.channels, narrow.channels] * (1 + forward_time.TURNS)  # the first compile
    for name, one in (("original", net), ("searched", narrow)):
        assert found["seconds"][name] == pytest.approx(
            [1e-3 * one.channels[0]] * forward_time.TURNS
        )
    assert found["batch_size"] * len(task.devices) == task.eval_batch_size


def test_slow_networks_are_timed_less_often(task, clock, monkeypatch):
    monkeypatch.setattr(forward_time, "_MOST", 0.1)
    found = forward_time.forward_times(task, {"original": task.net})
    assert len(found["seconds"]["original"]) == 3


def test_the_real_network_is_called(task, monkeypatch):
    monkeypatch.setattr(forward_time, "_LEAST", 0.0)
    found = forward_time.forward_times(task, {"original": task.net})
    assert all(seconds > 0 for seconds in found["seconds"]["original"])


def test_a_search_tells_the_times_of_what_it_compared(tmp_path, monkeypatch):
    timed = []

    def times(task, nets, batch_size):
        timed.append({name: net.channels for name, net in nets.items()})
        seconds = {name: [2e-3 - 1e-3 * (name == "searched")] * 3 for name in nets}
        return {"device": "cpu", "batch_size": 16, "seconds": seconds}

    def trained(run, name, channels, *_):
        score = {key: [0.9, 0.01] for key in ("top1", "top5")}
        seeds = [{"seed": seed, "top1": 0.9, "top5": 0.9, "loss": 1.0} for seed in range(3)]
        return {"channels": list(channels), "macs": 10, "params": 10, "seeds": seeds, **score}

    monkeypatch.setattr(compare, "forward_times", times)
    monkeypatch.setattr(compare, "train_seeds", trained)
    monkeypatch.setattr(compare, "_seconds", lambda files: {})
    config = small_config(**{"final.timed": True, "method": f"{__name__}:Equal"})
    result = search(config, tmp_path, quiet=True)
    vectors = {name: tuple(result[name]["channels"]) for name in ("original", "searched")}
    assert timed == [vectors]
    told = result_table(result)
    assert "An image takes it 1 ms, 0.50 ± 0.00 times as long (cpu, batches of 16)" in told
    assert "ms/image" in told


def test_what_was_not_measured_is_not_told(tmp_path):
    assert " ms" not in result_table(fake_run(tmp_path / "r").result)
