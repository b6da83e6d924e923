"""The command line: tables, figures, and runs that can't be read."""

import re
import subprocess
import sys

import pytest

from furs_jax.report.__main__ import main
from furs_jax.report.table4 import comparison
from tests import ROOT
from tests.fake_runs import fake_run, fake_training, rewrite


@pytest.mark.parametrize("init_from", [None, "runs/x/checkpoints/final_searched_0"])
def test_a_training_is_a_row_and_a_figure(tmp_path, capsys, init_from):
    run = fake_training(tmp_path / "t", init_from)
    (row,) = comparison([run]).rows
    assert (row.method, row.top1, row.ft) == ("trained", (0.9, None), init_from is not None)
    assert row.macs_m * 1e6 == run.network.macs(run.channels)
    main([str(run.path)])
    assert capsys.readouterr().err == ""
    names = {path.stem for path in (run.path / "report").glob("*.png")}
    assert names == {"accuracy", "accuracy_params", "network"}


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
    monkeypatch.setattr("furs_jax.networks.by_name.imported", None)
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


def test_the_command_writes_tables_and_figures(tmp_path, capsys):
    run = fake_run(tmp_path / "r")
    main([str(run.path)])
    output = capsys.readouterr()
    assert output.err == ""
    names = {path.name for path in (run.path / "report").iterdir()}
    figures = ("accuracy", "accuracy_params", "network", "furs", "channels")
    assert names == {"index.html", "report.md", "table.csv"} | {
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
    written = sorted(path.name for path in (run.path / "report").iterdir())
    assert written == ["index.html", "report.md", "table.csv"]


def test_a_report_imports_nothing_that_computes():
    code = "import sys, furs_jax.report.__main__; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rooms = ("bench", "data", "furs", "jobs", "methods", "training", "widths")
    heavy = {"flax", "matplotlib", "optax", "orbax", *(f"furs_jax.{room}" for room in rooms)}
    assert not heavy & set(imported.stdout.split())


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
