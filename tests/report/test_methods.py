"""Methods compared: the table and the figure, against uniform widths at each run's own budget."""

import csv
import io

import pytest

from furs_jax.report.__main__ import write_report
from furs_jax.report.method_figure import draw_methods
from furs_jax.report.method_table import compare_methods
from furs_jax.run.statistics import difference_interval
from tests.fake_runs import fake_run, rewrite


def method_run(path, method, top1=0.9, width=0.5, **changes):
    """A run of a method that tested the searched network alone."""
    run = fake_run(path, width=width, top1=(0.9, top1), rounds=0)

    def configure(content):
        config = content["config"] | {"method": method, **changes.get("config", {})}
        config["kd"] = config["kd"] | changes.get("kd", {})
        config["final"] = config["final"] | {"original": False} | changes.get("final", {})
        content["config"] = config

    def conclude(result):
        del result["original"], result["difference"]
        result.update(method=method, search_macs=2_000_000_000, final_macs=4_000_000_000)
        result["seconds"] = {"search": 7.0, "final": 9.0}
        result["searched"] |= changes.get("searched", {})

    rewrite(run, "config.json", configure)
    return rewrite(run, "result.json", conclude)


def differences(runs):
    return {(r.method, r.ft, r.kd): r.uniform_difference for r in compare_methods(runs).rows}


def test_each_method_is_compared_with_uniform_widths_at_its_budget(tmp_path):
    runs = [
        method_run(tmp_path / "u5", "uniform", 0.80),
        method_run(tmp_path / "u2", "uniform", 0.70, width=0.25),
        method_run(tmp_path / "s5", "sfp", 0.81),
        method_run(tmp_path / "s2", "sfp", 0.72, width=0.25),
        method_run(tmp_path / "own", "my_module:MyMethod", 0.79),
    ]
    table = compare_methods(runs)
    assert [(row.method, round(row.top1.mean, 2)) for row in table.rows] == [
        ("Uniform", 0.80),
        ("MyMethod", 0.79),
        ("SFP", 0.81),
        ("Uniform", 0.70),
        ("SFP", 0.72),
    ]
    found = [r.uniform_difference and r.uniform_difference.mean for r in table.rows]
    assert found == [None, pytest.approx(-0.01), pytest.approx(0.01), None, pytest.approx(0.02)]
    pair = [[seed["top1"] for seed in r.result["searched"]["seeds"]] for r in (runs[2], runs[0])]
    assert table.rows[2].uniform_difference == difference_interval(*pair)


def test_only_what_is_trained_alike_is_compared(tmp_path):
    uniform = method_run(tmp_path / "u", "uniform", 0.8)
    taught = method_run(tmp_path / "k", "sfp", kd={"teacher": "/a/teacher"})
    longer = method_run(tmp_path / "l", "fpgm", final={"seeds": 4})
    recipe = {**uniform.config["final"]["train"], "learning_rate": 0.01}
    slower = method_run(tmp_path / "r", "lccl", final={"train": recipe})
    tuned = method_run(
        tmp_path / "f", "tas", final={"train": recipe}, config={"init_from": "/a/checkpoint"}
    )
    found = differences([uniform, taught, longer, slower, tuned])
    assert found.pop(("TAS", True, False)) is not None  # fine-tuning has a recipe of its own
    assert found == dict.fromkeys(found)
    assert len(found) == 4


def test_what_could_be_skipped_is_called_theoretical(tmp_path):
    uniform = method_run(tmp_path / "u", "uniform")
    sparse = method_run(tmp_path / "l", "lccl", searched={"theoretical_macs": 123_400})
    text = compare_methods([uniform, sparse]).markdown()
    assert f"0.1234† of {sparse.result['searched']['macs'] / 1e6:.4g}" in text
    assert "theoretical: of what could be skipped" in text
    assert "theoretical" not in compare_methods([uniform]).markdown()
    figure = draw_methods([uniform, sparse])
    assert figure.axes[0].lines


def test_the_csv_has_the_costs_and_the_page_says_what_is_missing(tmp_path):
    unfinished = fake_run(tmp_path / "n", trained=0)
    runs = [method_run(tmp_path / "u", "uniform"), method_run(tmp_path / "s", "sfp"), unfinished]
    assert write_report(runs, tmp_path / "out", each=False) == []
    header, *rows = csv.reader(io.StringIO((tmp_path / "out" / "methods.csv").read_text()))
    row = dict(zip(header, rows[1], strict=True))
    assert (row["method"], row["search_macs_g"], row["search_s"]) == ("SFP", "2.0", "7.0")
    assert (row["training_macs_g"], row["training_s"]) == ("4.0", "9.0")
    assert float(row["top1_half_width"]) == pytest.approx(runs[1].result["searched"]["top1"][1])
    page = (tmp_path / "out" / "report.md").read_text()
    assert "2 of 3 searches have ended" in page
    assert "![methods](methods.png)" in page
    assert (tmp_path / "out" / "methods.png").stat().st_size > 10_000
    assert not (tmp_path / "out" / "accuracy.png").exists()


def test_one_method_has_no_such_table(tmp_path):
    write_report([fake_run(tmp_path / "r")], tmp_path / "out")
    assert not (tmp_path / "out" / "methods.csv").exists()
    assert (tmp_path / "out" / "accuracy.png").exists()
