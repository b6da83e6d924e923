"""Tables and intervals, against closed forms."""

import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from furs_jax.errors import WorkdirError
from furs_jax.networks import get_network
from furs_jax.report.__main__ import main
from furs_jax.report.run_record import read_run
from furs_jax.report.table4 import comparison, published_table
from furs_jax.run.statistics import Interval, difference_interval, mean_interval
from furs_jax.run.tables import format_table, network_table, result_table
from tests import ROOT
from tests.fake_runs import fake_run, fake_training, rewrite


def test_intervals_match_student_and_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 5), rng.normal(0, 3, 7)
    low, high = stats.ttest_1samp(a, 0).confidence_interval(0.95)
    mean, half = mean_interval(a)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    mean, half = difference_interval(a, b)
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_a_95_percent_interval_covers_in_95_percent_of_cases():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        mean, half = difference_interval(rng.normal(0.3, 1, 5), rng.normal(0, 2, 5))
        covered += abs(mean - 0.3) <= half
    assert 0.93 < covered / 2000 < 0.97


def test_one_seed_gives_no_interval():
    assert mean_interval([0.5]) == Interval(0.5, None)
    assert difference_interval([0.5], [0.25, 0.25]) == Interval(0.25, None)
    assert difference_interval([0.5, 0.5], [0.25, 0.25]) == Interval(0.25, 0.0)
    assert Interval(0.1234, None).format() == "12.34"
    assert Interval(0.1234, 0.01).format(sign=True) == "+12.34 ± 1.00"


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


def test_an_unfinished_run_tells_what_it_has(tmp_path):
    begun = fake_run(tmp_path / "a", rounds=1, trained=0)
    assert begun.progress == "unfinished: 1 of 2 rounds"
    row = comparison([begun]).rows[1]
    assert row.top1 is None
    assert row.macs_m * 1e6 == begun.rounds[-1]["next_macs"]
    late = fake_run(tmp_path / "b", trained=4)
    original, searched = comparison([late]).rows
    assert original.top1.half_width > 0
    assert (searched.top1.half_width, searched.source) == (
        None,
        "b, unfinished: 4 of 6 trainings, 1 seed",
    )
    assert comparison([fake_run(tmp_path / "c", rounds=0, trained=0)]).rows == ()


def test_a_run_from_a_given_vector_is_not_called_original(tmp_path):
    run = fake_run(tmp_path / "r", trained=0, start=[9, 7] * 6)
    assert run.start == [9, 7] * 6
    assert run.original == list(run.network.channels) != run.start
    original, start, searched = comparison([run]).rows
    net = get_network("resnet14_cifar", 0.5, 10, image_shape=(8, 8, 1))
    assert original.macs_m * 1e6 == net.macs(net.channels)
    assert start.macs_m * 1e6 == net.macs([9, 7] * 6)
    assert searched.params_m is None
    assert run.progress == "unfinished: 0 of 9 trainings"
    main([str(run.path)])


def test_a_given_vector_that_is_the_original_s_has_no_start(tmp_path):
    net = get_network("resnet14_cifar", 0.5)
    run = fake_run(tmp_path / "r", trained=0, start=net.channels)
    assert run.progress == "unfinished: 0 of 6 trainings"
    assert [row.method for row in comparison([run]).rows] == ["original", "Network Adjustment"]


@pytest.mark.parametrize("init_from", [None, "runs/x/checkpoints/final_searched_0"])
def test_a_training_is_a_row_and_a_figure(tmp_path, capsys, init_from):
    run = fake_training(tmp_path / "t", init_from)
    (row,) = comparison([run]).rows
    assert (row.method, row.top1, row.ft) == ("trained", (0.9, None), init_from is not None)
    assert row.macs_m * 1e6 == run.network.macs(run.channels)
    main([str(run.path)])
    assert capsys.readouterr().err == ""
    names = {path.stem for path in (run.path / "report").glob("*.png")}
    assert names == {"accuracy", "network"}


def test_a_training_that_has_not_ended_is_unfinished(tmp_path):
    run = fake_training(tmp_path / "t", ended=False)
    (row,) = comparison([run]).rows
    assert (row.method, row.top1) == ("trained", None)
    assert run.progress == "unfinished: 0 of 1 trainings"


def test_a_search_from_weights_trains_its_networks_from_scratch(tmp_path):
    run = fake_run(tmp_path / "r")
    path = "runs/x/checkpoints/final_searched_0"
    run = rewrite(run, "config.json", lambda content: content["config"].update(init_from=path))
    assert not any(row.ft for row in comparison([run]).rows)


def test_a_benchmark_s_folder_is_no_run(tmp_path):
    run = fake_run(tmp_path / "r")
    with pytest.raises(WorkdirError, match=r"a benchmark's trainings \(truth\).*result.json"):
        rewrite(run, "config.json", lambda content: content["config"].update(mode="truth"))


def test_the_recorded_difference_is_shown(tmp_path):
    run = fake_run(tmp_path / "r")
    run = rewrite(run, "result.json", lambda c: c["difference"].update(top1=[0.123, 0.045]))
    assert comparison([run]).rows[1].top1_difference == Interval(0.123, 0.045)


def test_an_unfinished_run_tells_the_vector_that_its_options_select(tmp_path):
    run = fake_run(tmp_path / "r", rounds=3, trained=4)
    assert run.channels == run.rounds[-1]["next_channels"]
    run = rewrite(run, "config.json", lambda c: c["config"]["search"].update(select="best"))
    assert run.channels == run.rounds[-1]["channels"]
    searched = comparison([run]).rows[-1]
    assert searched.macs_m * 1e6 == run.rounds[-1]["macs"]
    assert searched.params_m * 1e6 == run.rounds[-1]["params"]


def test_finals_after_few_rounds_are_counted(tmp_path):
    run = fake_run(tmp_path / "r", rounds=2, trained=4)
    run = rewrite(run, "config.json", lambda c: c["config"]["search"].update(rounds=10))
    assert run.progress == "unfinished: 4 of 6 trainings"  # sites were equal, it stopped early


def test_a_report_imports_nothing_that_the_run_names(tmp_path, capsys, monkeypatch):
    """A run of somebody else's names a module that lies beside its files, or anywhere."""
    run = fake_run(tmp_path / "foreign")
    (run.path / "payload.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def name(content):
        content["config"]["network"] = "foreign.payload:Net"
        content["network"]["name"] = "foreign.payload:Net"

    rewrite(run, "config.json", name)
    monkeypatch.setattr("furs_jax.networks.user_module", None)
    main([str(run.path)])
    output = capsys.readouterr()
    assert output.err == ""
    assert "| Net 0.5x | original |" in output.out
    assert "foreign" not in sys.modules
    assert (run.path / "report" / "network.png").exists()


def test_a_run_of_an_earlier_version_says_what_is_not_drawn(tmp_path, capsys):
    run = fake_run(tmp_path / "r")
    run = rewrite(run, "config.json", lambda content: content.pop("network"))
    assert run.site_names() == [str(site) for site in range(12)]
    assert run.original == run.result["original"]["channels"]
    main([str(run.path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert "network is not drawn: the run was begun by an earlier version" in line
    assert {"furs.png", "channels.png"} <= {p.name for p in (run.path / "report").iterdir()}


def test_a_run_of_an_earlier_version_from_given_widths_knows_no_original(tmp_path):
    run = fake_run(tmp_path / "r", trained=0, start=[9, 7] * 6)
    run = rewrite(run, "config.json", lambda content: content.pop("network"))
    assert run.original is None
    assert comparison([run]).rows[0].macs_m is None


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda c: c["config"].update(network=5)),
        ("config.json", lambda c: c["config"].pop("search")),
        ("config.json", lambda c: c.update(network=[])),
        ("config.json", lambda c: c["network"]["layers"].pop(1)),
        ("config.json", lambda c: c["network"]["layers"][1].update(height=0)),
        ("config.json", lambda c: c["network"]["layers"][1].update(code="x")),
        ("config.json", lambda c: c["network"]["original"]["channels"].pop()),
        ("config.json", lambda c: c["network"]["connections"]["reads"].append([99])),
        ("result.json", lambda c: c["searched"]["channels"].pop()),
        ("result.json", lambda c: c["searched"].update(channels=["1"] * 12)),
        ("result.json", lambda c: c["original"].update(macs=None)),
        ("result.json", lambda c: c["original"]["seeds"][0].update(top1="x")),
        ("result.json", lambda c: c["searched"].update(top1=[1])),
    ],
)
def test_a_record_that_cannot_be_is_one_line(tmp_path, file, change):
    run = fake_run(tmp_path / "r")
    with pytest.raises(WorkdirError, match="damaged"):
        rewrite(run, file, change)


@pytest.mark.parametrize(
    "change",
    [
        {"furs": None},
        {"furs": [1.0]},
        {"furs_stderr": [1.0]},
        {"increased": [12]},
        {"next_channels": [8] * 11},
        {"channels": [0] * 12},
        {"round": 7},
        {"next_parent": 9},
        {"macs": "many"},
    ],
)
def test_a_round_that_cannot_be_is_one_line(tmp_path, change):
    run = fake_run(tmp_path / "r")
    lines = [json.dumps({**record, **change}) + "\n" for record in run.rounds]
    (run.path / "rounds.jsonl").write_text("".join(lines))
    with pytest.raises(WorkdirError, match="rounds.jsonl.* line 1"):
        read_run(run.path)


def test_the_command_writes_tables_and_figures(tmp_path, capsys):
    run = fake_run(tmp_path / "r")
    main([str(run.path)])
    output = capsys.readouterr()
    assert output.err == ""
    names = {path.name for path in (run.path / "report").iterdir()}
    figures = ("accuracy", "network", "furs", "channels")
    assert names == {"report.md", "table.csv"} | {
        f"{figure}.{kind}" for figure in figures for kind in ("png", "svg")
    }
    page = (run.path / "report" / "report.md").read_text()
    assert all(f"({figure}.png)" in page for figure in figures)
    assert page.split("\n\n![")[0] in output.out


def test_several_runs_of_one_name_keep_their_figures_apart(tmp_path):
    paths = [str(fake_run(tmp_path / parent / "r", rounds=1).path) for parent in "ab"]
    with pytest.raises(SystemExit, match="give --output=DIR"):
        main(paths)
    main([*paths, f"--output={tmp_path}/out"])
    assert {"a_r_network.png", "b_r_network.svg"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_a_report_s_folders_are_of_the_folder_that_one_calls_from(tmp_path, monkeypatch):
    fake_run(tmp_path / "a b" / "-r", rounds=1)
    monkeypatch.chdir(tmp_path / "a b")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("furs_jax.report.__main__.write_report", lambda runs, output: [str(output)])
    main(["~/a b/-r", "--output", "../o"])
    main(["./-r"])
    for arguments in (["gs://b/r"], ["./-r", "--output=s3://b"]):
        with pytest.raises(SystemExit, match="is an address, .*mount the bucket"):
            main(arguments)


def test_what_cannot_be_drawn_is_said(tmp_path, capsys):
    main([str(fake_run(tmp_path / "r", rounds=0, trained=0).path)])
    errors = capsys.readouterr().err
    assert errors.count("no round has ended yet") == 3
    assert errors.count("no final training has ended yet") == 1


def test_without_matplotlib_the_tables_are_written(tmp_path):
    run = fake_run(tmp_path / "r")
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from furs_jax.report.__main__ import main; main(sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(run.path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(r"furs_jax: figures need matplotlib.*\[report\].*\n", result.stderr)
    assert sorted(p.name for p in (run.path / "report").iterdir()) == ["report.md", "table.csv"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is no folder"),
        (lambda path: path.mkdir(), "holds no config.json"),
        (lambda path: (fake_run(path).path / "result.json").write_text("{"), "damaged"),
    ],
)
def test_a_folder_that_is_no_run_is_one_line(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(SystemExit, match=rf"\Afurs_jax: .*{message}.*\Z"):
        main([str(tmp_path / "x")])
