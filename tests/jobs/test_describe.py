"""Mode "describe", which needs no run: tables of networks."""

import pytest

from furs_jax.errors import ConfigError, DataError
from furs_jax.jobs.dispatch import do
from furs_jax.options.parse import parse
from tests.small_runs import small_config


def test_describe_of_a_missing_folder_shows_no_other_table(tmp_path):
    config = small_config(mode="describe")
    config.data.name = f"folder:{tmp_path}/nowhere"
    with pytest.raises(DataError, match="there is no folder .*nowhere; folder:DIR needs one with"):
        do(parse(config), None)


def test_describe_needs_neither_data_nor_folder(tmp_path, capsys):
    config = small_config(mode="describe")
    config.data.name = f"idx:{tmp_path}"
    do(parse(config), None)
    printed = capsys.readouterr()
    assert "for its usual images: 32x32x3" in printed.out
    assert f"this is the table of other images: {tmp_path}/train-images" in printed.err
    config.width_multiplier, config.flops_budget = 1.0, 1e6
    do(parse(config), None)
    (total,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("total"))
    assert 0.999e6 <= int(total.split()[1].replace(",", "")) <= 1e6
    do(parse(small_config(mode="describe")), None)
    assert "brings" not in capsys.readouterr().out
    do(parse(small_config(mode="describe", channels=(5,))), None)
    output = capsys.readouterr().out
    start = output.partition("to its budget: ")[2].partition(",")[0].split()
    assert len(start) == 6
    assert sum(map(int, start)) > 6 * 5
    assert "stage3_block1_conv2" in output
    assert "8x8x1" in output
    with pytest.raises(ConfigError, match="mode='dream' must be one of search, train"):
        do(parse(small_config(mode="dream")), None)
    with pytest.raises(ConfigError, match="give the run's folder"):
        do(parse(small_config()), None)
