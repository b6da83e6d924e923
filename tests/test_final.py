"""The final trainings: taught by the original, or by another run's network."""

import pytest

from furs_jax.data import load_dataset
from furs_jax.errors import ConfigError
from furs_jax.prepare import initial_network
from furs_jax.reallocate import reallocate
from furs_jax.report.runs import read_run
from furs_jax.report.table4 import comparison
from furs_jax.search import search
from tests.test_search import small_config


def test_the_original_teaches_the_searched_network(tmp_path):
    few = {"train.epochs": 1, "final.train.epochs": 2, "search.rounds": 1, "final.seeds": 1}
    alone, taught = (
        search(small_config(**few, **options), tmp_path / name, quiet=True)
        for name, options in (("alone", {}), ("taught", {"kd.teacher": "original"}))
    )
    assert taught["original"] == alone["original"]
    assert taught["searched"]["channels"] == alone["searched"]["channels"]
    assert taught["searched"]["seeds"] != alone["searched"]["seeds"]


def test_a_teacher_that_is_not_there_is_missed_before_any_training(tmp_path):
    with pytest.raises(ConfigError, match="kd.teacher=.*nowhere: there is no such folder"):
        search(small_config(**{"kd.teacher": "nowhere"}), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w" / "metrics.jsonl").exists()


def _after_a_round(run, initial):
    options = run.config["reallocate"]
    net, budget = initial_network(small_config(), load_dataset("digits"))
    steps = {key: options[key] for key in ("num_layers", "step", "step_decay")}
    furs = run.rounds[0]["furs"]
    return list(reallocate(net, run.start, furs, initial=initial, budget=budget, **steps))


def test_steps_may_be_of_the_widths_begun_with(tmp_path):
    options = {"train.epochs": 1, "final.train.epochs": 1, "search.rounds": 1, "final.seeds": 1}
    config = small_config(channels=(12,), **{"reallocate.step_from_start": True, **options})
    search(config, tmp_path, quiet=True)
    run = read_run(tmp_path)
    assert run.rounds[0]["next_channels"] == _after_a_round(run, run.start)
    assert run.rounds[0]["next_channels"] != _after_a_round(run, run.original)


def test_a_search_from_other_widths_is_compared_with_them_too(tmp_path, capsys):
    options = {"train.epochs": 1, "final.train.epochs": 1, "search.rounds": 1, "final.seeds": 2}
    result = search(small_config(channels=(12, 8, 8, 8, 8, 8), **options), tmp_path)
    assert len({tuple(result[n]["channels"]) for n in ("original", "start", "searched")}) == 3
    for name, reference in (("difference", "original"), ("difference_from_start", "start")):
        expected = result["searched"]["top1"][0] - result[reference]["top1"][0]
        assert result[name]["top1"][0] == pytest.approx(expected)
    last = capsys.readouterr().out.rpartition("network ")[2]
    names = [line.split()[0] for line in last.splitlines() if line]
    assert names[2:7] == ["original", "start", "searched", "difference", "difference"]
    assert last.count("differs from") + last.count("beyond the noise") == 2
    assert "the original's" in last
    assert "the start's" in last
    run = read_run(tmp_path)
    assert run.rounds[0]["next_channels"] == _after_a_round(run, run.original)
    rows = {row.method: row for row in comparison([run]).rows}
    assert list(rows) == ["original", "start", "Network Adjustment"]
    assert rows["start"].top1.mean == pytest.approx(result["start"]["top1"][0])
    assert rows["original"].top1_difference is None
    assert rows["start"].top1_difference.mean == pytest.approx(
        result["start"]["top1"][0] - result["original"]["top1"][0]
    )
    assert run.original == result["original"]["channels"]
    assert run.start == result["start"]["channels"]
