"""The training benchmark and the profiler's hook."""

import json

import jax
import jax.numpy as jnp
import pytest

from configs import digits
from furs_jax.bench import throughput
from furs_jax.bench.throughput import PEAKS, TrainRate, in_words
from furs_jax.machine.profile import traced
from furs_jax.networks import get_network
from furs_jax.options.parse import parse


def test_the_step_the_input_and_both_are_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "SECONDS", 0.01)
    config = digits.get_config()
    config.cpu_devices, config.network, config.width_multiplier = 0, "resnet8_cifar", 0.25
    rate = throughput.bench(parse(config), tmp_path / "w")
    record = json.loads((tmp_path / "w" / "bench_train.json").read_text())
    assert {field: record[field] for field in TrainRate._fields} == rate._asdict()
    net = get_network("resnet8_cifar", 0.25, 10, image_shape=(8, 8, 1))
    assert rate.macs_per_second == pytest.approx(3 * net.macs(net.channels) * rate.step)
    assert min(rate.forward, rate.one, rate.two, rate.pipeline, rate.together) > 0
    assert rate.programs == "one"  # of few activations
    assert record["step"] == rate.step == rate.one
    assert rate._replace(programs="two").step == rate.two
    assert rate.share_of_peak is None  # of a CPU
    output = capsys.readouterr().out
    assert "unknown" in output
    assert record["bound"] in ("input-bound", "compute-bound")
    assert f"\n{record['bound']}: " in output
    assert "\nA run takes the step as one program.\n" in output


def test_what_training_waits_for():
    rate = TrainRate(300.0, 100.0, 90.0, "one", 50.0, 45.0, 1e9, None, None)
    assert "input-bound: the devices could train 2.0 times" in in_words(rate)
    assert "compute-bound: the input could give 3.0" in in_words(rate._replace(pipeline=300.0))
    # The longer name first, where one begins with the other.
    names = list(PEAKS)
    assert all(not later.startswith(n) for i, n in enumerate(names) for later in names[i + 1 :])


@pytest.mark.parametrize("steps", [30, 12])
def test_ten_steps_are_traced(tmp_path, steps):
    done = []
    with traced(str(tmp_path), done.append) as on_step:
        for step in range(steps):
            jax.block_until_ready(jnp.sum(jnp.ones(3)))
            on_step(step)
    assert done == list(range(steps))
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_no_trace_by_default(tmp_path):
    with traced(None, print) as on_step:
        assert on_step is print
