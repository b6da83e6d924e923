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
        (0.01, 0.02, "is better than the original, beyond the noise of seeds: +2.00 points"),
        (0.01, -0.02, "is worse than the original, beyond the noise of seeds: -2.00 points"),
        (0.03, 0.02, "within the noise of seeds (95 % interval -1.00 to +5.00, 3 seeds each)"),
        (0.03, -0.02, "within the noise of seeds (95 % interval -5.00 to +1.00, 3 seeds each)"),
    ],
)
def test_the_result_says_whether_the_difference_is_noise(tmp_path, half_width, gain, said):
    result = fake_run(tmp_path / "r").result
    result["difference"]["top1"] = [gain, half_width]
    lines = result_table(result).splitlines()
    assert len([line for line in lines if said in line]) == 1


def test_few_seeds_are_shown_without_an_interval(tmp_path):
    """Two seeds' interval is wider than any figure: of 88 % it would say ± 19."""
    result = fake_run(tmp_path / "r").result
    result["difference"]["top1"] = [0.02, 1.44]
    for count in (2, 1):
        for name in ("original", "searched"):
            result[name]["seeds"] = result[name]["seeds"][:count]
            result[name]["top1"] = [0.9, 0.5]
        text = result_table(result)
        assert "±" not in text
        assert "144" not in text
        for seed in result["searched"]["seeds"]:
            assert f"{100 * seed['top1']:.2f}" in text
        assert "too few seeds to tell" in text
        assert "+2.00 points" in text


def test_the_result_says_what_became_of_the_size(tmp_path):
    result = fake_run(tmp_path / "r").result
    result["original"]["params"], result["searched"]["params"] = 40_000, 22_000
    assert "22,000 parameters (-45.0 %), compared with the original" in result_table(result)
