"""Latency as a table tells it; furs_jax.bench.latency measures it, here it is made by hand."""

import json
import math

import jax
import numpy as np
import pytest

from furs_jax.costs import load_cost
from furs_jax.costs.latency import FILE, LatencyTable, SegmentTimes, widths_of
from furs_jax.errors import ConfigError, DamagedError
from furs_jax.machine.sealed import write_json
from furs_jax.networks.counting import fit_macs
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.networks.segments import module_segments
from furs_jax.options.parse import parse
from furs_jax.widths.budget import fit_to_budget
from tests.small_runs import small_config

NET = Network("chain", Plain((8, 8, 8), 5, 10, stages=1), (8, 8, 1))
MEASURED = {"device": "cpu", "jax": jax.__version__, "dtype": "float32", "batch_size": 1}
CONSTANT, FACTOR = 0.5, 2.0


def ms(widths) -> float:
    """Of a layer: a staircase of steps of 4, and 8 is faster than 4."""
    return float(sum(width if width != 4 else 9 for width in widths))


def made(**fields) -> LatencyTable:
    """Of the widths 4, 8, 12 at each site."""

    def sizes(channels):
        return [p.sizes for p in module_segments(NET.module(channels), NET.image_shape, 1)]

    formula = fit_macs(sizes, NET.channels, 1)
    columns = widths_of(formula)
    places = [{} for _ in columns]
    for vector in np.ndindex(3, 3, 3):
        values = formula.factors(4 * (np.array(vector) + 1))
        for own, rows in zip(columns, places, strict=True):
            widths = tuple(values[list(own)].tolist())
            rows[widths] = ms(widths)
    places = tuple(
        SegmentTimes(own, np.array([[*w, t] for w, t in rows.items()], float))
        for own, rows in zip(columns, places, strict=True)
    )
    table = LatencyTable(MEASURED, formula, places, (4,) * 3, (12,) * 3, CONSTANT, FACTOR, 0.05)
    return table._replace(**fields)


@pytest.fixture
def folder(tmp_path):
    write_json(tmp_path / FILE, made().record())
    return tmp_path


def latency(folder, **given):
    given = {"cost.resource": "latency", "cost.table": str(folder), **given}
    return load_cost(parse(small_config(**given)).cost, NET)


def expected(channels) -> float:
    """stem to a, a to b, b to c and its mean, by hand."""
    a, b, c = channels
    layers = [[a], [a, b], [b, c], [c], [c]]
    return CONSTANT + FACTOR * sum(map(ms, layers))


def test_a_network_takes_what_its_layers_do(folder):
    cost = latency(folder)
    for vector in ((4, 4, 4), (8, 4, 12), (12, 12, 12)):
        assert cost.of(vector) == pytest.approx(expected(vector))
    assert cost.multiples() == (4, 4, 4)
    assert cost.widest() == (12, 12, 12)
    assert (cost.unit, cost.name, cost.is_stepped, cost.is_measured) == (
        "ms",
        "latency",
        True,
        True,
    )


def test_between_the_measured_widths_the_fastest_wider_one_counts(folder):
    cost = latency(folder)
    assert cost.of((5, 8, 8)) == cost.of((8, 8, 8))
    assert cost.of((9, 11, 8)) == cost.of((12, 12, 8))
    assert cost.of((3, 8, 8)) == cost.of((8, 8, 8)) < cost.of((4, 8, 8))
    assert cost.of((13, 8, 8)) == math.inf


def test_smoothed_marginals_are_slopes_and_above_zero(folder):
    cost = latency(folder)
    at = np.array([8, 8, 8])
    found = cost.smoothed(at)
    for site in range(3):
        times = [cost.of([*at[:site], w, *at[site + 1 :]]) for w in (4, 8, 12)]
        assert found[site] == pytest.approx(np.polyfit([4, 8, 12], times, 1)[0])
    assert np.all(found > 0)
    narrow = [4, 4, 4]
    assert cost.of([4, 4, 8]) < cost.of(narrow)  # half to twice 4 it falls
    share = cost.of(narrow) / 3
    assert cost.smoothed(np.array(narrow))[2] == pytest.approx(0.1 * share / 4)


def test_a_search_keeps_within_it_and_ends_on_the_edges(folder):
    cost = latency(folder)
    for budget in np.linspace(expected((8, 8, 8)), expected((12, 12, 12)), 7):
        found = fit_to_budget(NET, (8, 8, 8), budget, 1, (4,) * 3, cost, cost.widest())
        assert cost.of(found) <= budget
        assert 4 not in found  # 8 is faster
        for site in range(3):
            if found[site] < 12:
                wider = [c + 4 * (place == site) for place, c in enumerate(found)]
                assert cost.of(wider) > cost.of(found)


def test_another_vector_of_the_network_has_the_same_table(folder):
    cost = latency(folder, **{"cost.batch_size": 1})
    other = cost.on(NET.of((4, 8, 12)))
    assert other.of((4, 8, 12)) == cost.of((4, 8, 12))
    assert other.digest() == cost.digest()
    assert len(cost.digest()) == 8


def test_a_table_for_this_device_and_network_is_taken(folder):
    latency(folder).check("cpu", "float32")
    latency(folder / FILE).check("cpu", "float32")


@pytest.mark.parametrize(
    ("table", "given", "device", "message"),
    [
        ({}, {}, "TPU v4", "measured with device cpu, and this is TPU v4; measure anew: python -m"),
        ({"measured": {**MEASURED, "jax": "0.1"}}, {}, "cpu", "with jax 0.1, and this is"),
        ({"measured": {**MEASURED, "dtype": "bfloat16"}}, {}, "cpu", "with dtype bfloat16, and"),
        ({}, {"cost.batch_size": 2}, "cpu", "with batch_size 1, and this is 2; measure anew"),
        ({"mean_error": 0.11}, {}, "cpu", "mean error of 11.0%, more than 10%: leave the machine"),
    ],
)
def test_a_table_that_can_t_be_trusted_is_refused(table, given, device, message, tmp_path):
    write_json(tmp_path / FILE, made(**table).record())
    with pytest.raises(ConfigError, match=message):
        latency(tmp_path, **given).check(device, "float32")


def test_a_table_of_another_network_is_refused(folder):
    for other in (
        Network("chain", Plain((8, 8), 5, 10, stages=1), (8, 8, 1)),
        Network("chain", Plain((8, 8, 8), 6, 10, stages=1), (8, 8, 1)),
        Network("chain", Plain((8, 8, 8), 5, 10, stages=1), (16, 16, 1)),
    ):
        cost = latency(folder)
        cost.net = other
        with pytest.raises(ConfigError, match="is of another network; measure anew"):
            cost.check("cpu", "float32")


def test_what_is_no_table_is_refused_with_what_to_do(folder, tmp_path):
    with pytest.raises(
        ConfigError, match="latency is measured first: run python -m furs_jax.bench"
    ):
        load_cost(parse(small_config(**{"cost.resource": "latency"})).cost, NET).of((8, 8, 8))
    with pytest.raises(ConfigError, match="there is no latency.json; it is written at the end"):
        latency(tmp_path / "none").of((8, 8, 8))
    record = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**record, "constant": 0.4}))
    with pytest.raises(DamagedError, match="it has changed since it was written"):
        latency(folder).of((8, 8, 8))
    first = record["places"][0]
    for field, value in (
        ("places", 3),
        ("places", [{**first, "rows": [[1.0, 2.0, 3.0, 4.0]]}, *record["places"][1:]]),
        ("places", [{**first, "columns": [10**6]}, *record["places"][1:]]),
        ("places", [{**place, "rows": []} for place in record["places"]]),
        ("units", [4]),
        ("units", [0, 4, 4]),
        ("formula", {}),
        ("factor", "much"),
        ("constant", -1e9),
    ):
        record.pop("crc32", None)
        write_json(folder / FILE, {**record, field: value})
        with pytest.raises(DamagedError, match="it is no table of latencies"):
            latency(folder).of((8, 8, 8))
