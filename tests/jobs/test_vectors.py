"""The widths that a run begins with: uniform ones of a budget, and given ones."""

import json
import signal

import pytest

from furs_jax.data import load_dataset
from furs_jax.errors import ConfigError, StoppedError, WorkdirError
from furs_jax.jobs.dispatch import do
from furs_jax.jobs.vectors import initial_network, start_vector
from furs_jax.machine.stop import Stop
from furs_jax.options.parse import parse
from tests.small_runs import small_config


def test_a_budget_sets_the_original_s_uniform_width():
    data = load_dataset("digits")
    config = small_config(network="resnet20_cifar", width_multiplier=1.0, flops_budget=1.17e6)
    cost, budget = initial_network(config, data)
    net = cost.net
    assert budget == 1_170_000
    assert 0 <= budget - net.macs(net.channels) <= 0.001 * budget
    base = net.channels[0]
    stages = [net.channels[:6], net.channels[6:12], net.channels[12:]]
    for factor, stage in zip((1, 2, 4), stages, strict=True):
        assert all(abs(c - factor * base) <= 4 for c in stage)


def test_a_start_vector_is_brought_to_the_budget():
    config = small_config()
    cost, budget = initial_network(config, load_dataset("digits"))
    net = cost.net
    assert start_vector(config, cost, budget) == net.channels
    config.channels = (2 * net.channels[0], *net.channels[1:])
    start = start_vector(config, cost, budget)
    assert start[0] > net.channels[0]
    assert 0 <= budget - net.macs(start) <= 0.02 * budget
    config.mode = "train"
    assert start_vector(config, cost, budget) == config.channels
    config.mode, config.channels = "search", (1,)
    equal = start_vector(config, cost, budget)
    assert max(equal) - min(equal) <= 2  # single channels fill up the budget
    assert 0 <= budget - net.macs(equal) <= 0.02 * budget
    for wrong in ((4, 4), (4, 4, 4, 4, 4, 0), (4.5,)):
        config.channels = wrong
        with pytest.raises(ConfigError, match="must be 6 widths, one for each site"):
            start_vector(config, cost, budget)


def test_a_run_whose_vector_has_changed_since_is_refused(tmp_path):
    source = tmp_path / "vector.json"
    config = small_config(
        **{"channels_from": str(source), "mode": "train", "final.seeds": 1,
           "final.train.epochs": 1, "cpu_devices": 0}
    )  # fmt: skip
    source.write_text(json.dumps({"trained": {"channels": [4, 5, 6, 7, 8, 9]}}))
    stop = Stop()
    stop.signal = signal.SIGTERM
    with pytest.raises(StoppedError):
        do(parse(config), tmp_path / "w", stop=stop)
    source.write_text(json.dumps({"trained": {"channels": [9, 8, 7, 6, 5, 4]}}))
    with pytest.raises(WorkdirError, match=r"began with channels \[4, 5, 6, 7, 8, 9\]"):
        do(parse(config), tmp_path / "w")
