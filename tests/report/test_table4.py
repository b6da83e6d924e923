"""The table of runs and of published figures."""

import csv
import io

import pytest

from furs_jax.report.table4 import comparison, published_table
from furs_jax.run.statistics import Interval
from tests.fake_runs import fake_run, rewrite


def csv_rows(table):
    header, *rows = csv.reader(io.StringIO(table.csv()))
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_csv_holds_the_result_s_figures(tmp_path):
    run = fake_run(tmp_path / "r")
    rows = csv_rows(comparison([run]))
    assert [row["method"] for row in rows] == ["original", "Network Adjustment"]
    for row, name in zip(rows, ("original", "searched"), strict=True):
        result = run.result[name]
        assert float(row["macs_m"]) * 1e6 == pytest.approx(result["macs"])
        found = [float(row["top1"]), float(row["top1_half_width"])]
        assert found == pytest.approx(result["top1"], rel=1e-5)
    assert float(rows[1]["top1_difference"]) == pytest.approx(0.02)
    assert rows[0]["top1_difference"] == ""


@pytest.mark.parametrize(
    ("network", "width", "data", "published"),
    [
        ("resnet18", 0.8, "folder:/data/ImageNet", 8),
        ("resnet18", 0.8, "tfds:imagenet2012", 8),
        ("resnet20_cifar", 1.0, "tfds:cifar100", 6),
        ("resnet20_cifar", 1.0, "digits", 0),
        ("resnet18", 1.0, "tfds:cifar100", 0),
    ],
)
def test_published_rows_are_of_the_same_network_and_data(tmp_path, network, width, data, published):
    table = comparison([fake_run(tmp_path / "r", network=network, width=width, data=data)])
    rows = [row for row in table.rows if row.published]
    assert len(rows) == published
    assert all(row.network.startswith(network) for row in rows)
    assert ("CVPR 2020" in table.markdown()) == (network == "resnet18" and published > 0)
    for row in rows:
        assert f"published [{'table4' if network == 'resnet18' else 'repository'}]" == row.source


def test_published_figures_are_table_4_s():
    rows = published_table("imagenet", "resnet18").markdown()
    assert "| resnet18 | TAS |  | ✓ | 69.15 (-1.50) | 89.19 (-0.68) | 1,210 | — |" in rows
    assert "| resnet18 | Network Adjustment |  |  | 71.22 (+0.91) | 90.07 (+0.62) |" in rows
    assert len(published_table("cifar100").rows) == 18


def test_a_search_from_weights_trains_its_networks_from_scratch(tmp_path):
    run = fake_run(tmp_path / "r")
    path = "runs/x/checkpoints/final_searched_0"
    run = rewrite(run, "config.json", lambda content: content["config"].update(init_from=path))
    assert not any(row.ft for row in comparison([run]).rows)


def test_the_recorded_difference_is_shown(tmp_path):
    run = fake_run(tmp_path / "r")
    run = rewrite(run, "result.json", lambda c: c["difference"].update(top1=[0.123, 0.045]))
    assert comparison([run]).rows[1].top1_difference == Interval(0.123, 0.045)


def test_of_few_seeds_every_report_shows_the_seeds(tmp_path):
    """Two seeds give an interval of 12.7 standard errors: no table, no file and no plot has it."""
    run = fake_run(tmp_path / "r")

    def cut(content):
        for name in ("original", "searched"):
            content[name] |= {"seeds": content[name]["seeds"][:2], "top1": [0.9, 0.06]}
        content["difference"]["top1"] = [0.02, 1.44]

    run = rewrite(run, "result.json", cut)
    table = comparison([run])
    row = csv_rows(table)[1]
    assert (row["top1_half_width"], row["top1_seeds"]) == ("", "0.91 0.92")
    assert row["top1_difference_half_width"] == ""
    assert "91.00, 92.00 (+2.00)" in table.markdown()
    assert run.networks()["searched"]["top1"] == (0.9, None)  # what figures draw
