"""Plain-text tables."""

import pytest

from furs_jax.networks import get_network
from furs_jax.run.tables import format_table, network_table, result_table
from tests.fake_runs import fake_run


def test_columns_are_aligned():
    text = format_table(("name", "n"), [("a", 1), ("long", 1000)])
    assert text.splitlines() == ["name     n", "----------", "a        1", "long  1000"]


def test_the_network_table_adds_up():
    net = get_network("resnet18")
    last = network_table(net, net.channels).splitlines()[-1]
    assert last.split() == ["total", "1,814,073,344", "100.0%", "11,689,512"]


@pytest.mark.parametrize(
    ("half_width", "gain", "said"),
    [
        (0.01, 0.02, "top-1 is better than the original's, beyond the noise"),
        (0.01, -0.02, "top-1 is worse than the original's, beyond the noise"),
        (0.03, 0.02, "from the original's within the noise"),
        (0.03, -0.02, "from the original's within the noise"),
    ],
)
def test_the_result_says_whether_the_difference_is_noise(tmp_path, half_width, gain, said):
    result = fake_run(tmp_path / "r").result
    result["difference"]["top1"] = [gain, half_width]
    lines = result_table(result).splitlines()
    assert len([line for line in lines if said in line]) == 1
    for name in ("original", "searched"):
        result[name]["seeds"] = result[name]["seeds"][:1]
    assert "noise" not in result_table(result)
