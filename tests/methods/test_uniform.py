"""Uniform widths: the original, trained once, as other methods' searched networks are."""

import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs.search import search
from tests.small_runs import small_config, timeless

SHORT = {"train.epochs": 1, "final.train.epochs": 1, "final.seeds": 1, "search.rounds": 1}


def test_uniform_widths_are_the_original_of_other_searches(tmp_path):
    """At a budget between two width multipliers, to the last bit of what is trained."""
    budget = {"width_multiplier": 1.0, "flops_budget": 61_000.0}
    uniform = search(small_config(**SHORT, **budget, method="uniform"), tmp_path / "u", quiet=True)
    other = search(small_config(**SHORT, **budget), tmp_path / "o", quiet=True)
    assert "original" not in uniform
    assert "difference" not in uniform
    assert uniform["searched"] == other["original"]
    assert uniform["budget"] == other["budget"]
    assert 0 <= budget["flops_budget"] - uniform["searched"]["macs"] <= 61
    assert uniform["search_macs"] == uniform["seconds"]["search"] == 0
    again = search(small_config(**SHORT, **budget, method="uniform"), tmp_path / "u", quiet=True)
    assert again == uniform


def test_a_search_may_leave_the_original_out(tmp_path, capsys):
    whole = search(small_config(**SHORT), tmp_path / "a", quiet=True)
    alone = search(small_config(**SHORT, **{"final.original": False}), tmp_path / "b")
    table = capsys.readouterr().out
    assert "\nsearched  " in table
    assert "difference" not in table
    without = {k: v for k, v in whole.items() if k not in ("original", "difference")}
    assert timeless(alone) == timeless(without)
    assert not (tmp_path / "b" / "checkpoints" / "final_original_0").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "uniform", "channels": (4,) * 6}, "no use for channels: .*leave channels out"),
        ({"method": "uniform", "kd.teacher": "original"}, "kd.teacher can't be that; give"),
        ({"final.original": False, "kd.teacher": "original"}, "final.original=False leaves out"),
    ],
)
def test_what_makes_no_sense_beside_it_is_refused(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        search(small_config(**SHORT, **options), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()
