"""python -m furs_jax.bench latency, by a clock of the tests' own."""

import itertools
import json

import numpy as np
import pytest

from furs_jax.bench import layer_times, whole_networks
from furs_jax.costs.latency import FILE, read_table, widths_of
from furs_jax.errors import StoppedError, WorkdirError
from furs_jax.networks import get_network
from furs_jax.networks.counting import fit_macs
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.networks.segments import module_segments
from furs_jax.options.parse import parse
from tests.small_runs import small_config

GIVEN = {"network": "resnet8_cifar", "width_multiplier": 0.25, "reallocate.channel_multiple": 4}
NET = get_network("resnet8_cifar", 0.25, 10, image_shape=(8, 8, 1))


def layer_ms(piece) -> float:
    return 1e-3 * sum(piece.sizes)


def network_ms(channels) -> float:
    pieces = module_segments(NET.module(channels), NET.image_shape, 1)
    return 0.25 + 1.5 * sum(map(layer_ms, pieces))


@pytest.fixture
def clock(monkeypatch):
    """A layer takes as long as its sizes say, and a network what its layers do, by a formula."""
    timed = []

    def forward_times(task, nets, batch_size):
        assert batch_size == 1
        seconds = {name: [network_ms(net.channels) / 1000] * 3 for name, net in nets.items()}
        return {"device": "cpu", "batch_size": 1, "seconds": seconds}

    def seconds(call, times):
        return layer_times._REPEATS * layer_ms(call()) / 1000

    def repeated(piece, bytes_of_net, device):
        def call():
            if not timed or timed[-1] != piece.key:
                timed.append(piece.key)
            return piece

        return call

    monkeypatch.setattr(whole_networks, "forward_times", forward_times)
    monkeypatch.setattr(layer_times, "seconds_per_call", seconds)
    monkeypatch.setattr(layer_times, "_repeated", repeated)
    return timed


def bench(folder, **given):
    return layer_times.bench(parse(small_config(**GIVEN, **given)), str(folder))


def test_the_table_tells_networks_that_it_has_not_seen(clock, tmp_path, capsys):
    table = bench(tmp_path)
    assert table.constant == pytest.approx(0.25, rel=0.1)  # not all sums' shapes are measured
    assert table.factor == pytest.approx(1.5, rel=0.05)
    assert table.mean_error < 0.01
    rng = np.random.default_rng(5)
    for _ in range(5):  # of equal widths in what is summed, so that each shape was measured
        a, b, c, *inner = 4 * rng.integers(1, 4, 6)
        vector = (inner[0], a, inner[1], b, inner[2], c)
        vector = tuple(min(int(w), top) for w, top in zip(vector, table.widest, strict=True))
        assert table.ms(vector) == pytest.approx(network_ms(vector), rel=0.03)
    told = capsys.readouterr().out
    assert "this table" in told
    assert "MACs" in told
    assert f"--config.cost.resource=latency --config.cost.table={tmp_path}" in told
    stored = json.loads((tmp_path / FILE).read_text())
    assert len(stored["networks"]["measured"]) == 50
    assert read_table(str(tmp_path))[0].ms(NET.channels) == table.ms(NET.channels)


def test_each_shape_is_timed_once_and_a_stopped_run_goes_on(clock, tmp_path, monkeypatch):
    whole = bench(tmp_path / "whole").record()
    assert len(clock) == len(set(clock)) * (1 + layer_times._TURNS)
    clock.clear()
    real, calls = layer_times._in_turn, itertools.count()

    def stopped(group):
        if next(calls) == 2:
            raise StoppedError("stopped", 143)
        return real(group)

    monkeypatch.setattr(layer_times, "_GROUP", 8)
    monkeypatch.setattr(layer_times, "_in_turn", stopped)
    with pytest.raises(StoppedError):
        bench(tmp_path / "killed")
    before = set(clock)
    assert len(before) == 16
    assert not (tmp_path / "killed" / FILE).exists()
    clock.clear()
    monkeypatch.setattr(layer_times, "_in_turn", real)
    assert bench(tmp_path / "killed").record() == whole
    assert before.isdisjoint(clock)


def test_timings_of_something_else_are_refused(clock, tmp_path):
    bench(tmp_path)
    with pytest.raises(WorkdirError, match="has timings of batch_size 1, here 2; give another"):
        bench(tmp_path, **{"cost.batch_size": 2})


def test_a_table_that_predicts_badly_is_said_to_be_refused(clock, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(whole_networks, "forward_times", lambda task, nets, size: {
        "seconds": {name: [float(rng.uniform(1, 9))] for name in nets}
    })  # fmt: skip
    assert bench(tmp_path).mean_error > 0.1
    assert "A search refuses this table" in capsys.readouterr().out


def test_a_real_layer_is_computed_as_often_as_is_said(monkeypatch):
    net = Network("chain", Plain((4, 6), 4, 10, stages=1), (8, 8, 1))
    pieces = module_segments(net.module((4, 6)), net.image_shape, 1)
    import jax

    for piece in pieces:
        call = layer_times._repeated(piece, 10_000, jax.devices()[0])
        text = call.func.lower(*call.args).compile().as_text()
        assert "while" in text
        made = call()
        assert [x.shape for x in made] == [v.aval.shape for v in piece.program.outvars]
    assert layer_times._in_turn({"a": call})["a"] > 0


@pytest.mark.parametrize("name", ["plain", "resnet8_cifar", "mnasnet_cifar"])
def test_each_layer_meets_every_pair_of_widths(name):
    """Of convolutions; in sums of unequal widths and after them the wider ones stand for others."""
    net = (
        Network("chain", Plain((8, 8, 8, 8), 5, 10, stages=1), (8, 8, 1))
        if name == "plain"
        else get_network(name, 0.25, 10, image_shape=(16, 16, 1))
    )
    units = tuple(net.multiple * 2 for _ in net.channels)
    widest = tuple(4 * unit for unit in units)

    def sizes(channels):
        return [p.sizes for p in module_segments(net.module(channels), net.image_shape, 1)]

    formula = fit_macs(sizes, net.channels, net.multiple)
    columns = widths_of(formula)
    vectors = list(layer_times.designed(formula, columns, units, widest))
    assert len(vectors) == 16
    for own in columns:
        sites = [np.flatnonzero(formula.slopes[f]) for f in own]
        plain = len(own) == 2 and not set(own) & set(formula.second.tolist())
        if plain and len(sites[0]) == len(sites[1]) == 1 and sites[0] != sites[1]:
            met = {tuple(formula.factors(v)[list(own)]) for v in vectors}
            assert len(met) == 16
