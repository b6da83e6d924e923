"""The notebook: clean, and its digits part runs in a fresh kernel."""

import pathlib
import re
import sys
import types

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from tests import ROOT
from tests.fake_runs import FAST_COMPILATION

# The notebook's own search takes a minute, most of it compilation.
TINY = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "search.rounds": 1,
    "furs.method": "fisher",
    "train.epochs": 1,
    "final.train.epochs": 1,
}


@pytest.fixture
def notebook():
    return nbformat.read(ROOT / "launch" / "colab.ipynb", as_version=4)


def test_it_is_clean(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert cell.metadata == {}


def test_the_repository_is_named_in_one_place(notebook):
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sum('REPOSITORY = ""' in source for source in sources) == 1
    assert sum("http" in source for source in sources) == 0


@pytest.fixture
def project(tmp_path):
    """The project's folder as a notebook finds it; what is written stays out of the real one."""
    (tmp_path / "project" / "launch").mkdir(parents=True)
    for name in ("configs", "furs_jax", "launch/colab.ipynb"):
        (tmp_path / "project" / name).symlink_to(ROOT / name)
    return tmp_path / "project"


def execute(notebook, folder):
    """In a fresh kernel that starts in a folder, as Jupyter does in the notebook's own."""
    resources = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_digits_part_shows_tables_and_figures(notebook, project, monkeypatch):
    """Opened where it lies, in launch/; every cell is run twice in a row."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("XLA_FLAGS", FAST_COMPILATION)
    (search,) = [i for i, cell in enumerate(notebook.cells) if "furs_jax.search" in cell.source]
    smaller = nbformat.v4.new_code_cell(f"config.update_from_flattened_dict({TINY})")
    notebook.cells.insert(search, smaller)
    notebook.cells = [
        nbformat.v4.new_code_cell(cell.source) for cell in code_cells(notebook) for _ in range(2)
    ]
    execute(notebook, project / "launch")
    shown = [
        [
            kind
            for output in cell.get("outputs", [])
            for kind in output.get("data", {})
            if kind in ("image/png", "text/markdown")
        ]
        for cell in notebook.cells
    ]
    sources = [cell.source for cell in notebook.cells]
    expected = {
        "report.comparison([run])": "text/markdown",
        "report.draw_network(run.network, run.before, run.channels)": "image/png",
        "report.draw_furs(run)": "image/png",
        "report.draw_channels(run)": "image/png",
        "report.draw_accuracy([run])": "image/png",
        'report.published_table("cifar100")': "text/markdown",
    }
    found = [(source, kind) for source, kinds in zip(sources, shown, strict=True) for kind in kinds]
    assert found == [pair for pair in expected.items() for _ in range(2)]
    predicted = [
        cell.outputs[0].data["text/plain"]
        for cell in notebook.cells
        if "furs_jax.load" in cell.source
    ]
    assert len(predicted) == 2
    assert all(re.match(r"\(\[('\d',\s+){9}'\d'\],", text) for text in predicted), predicted
    assert (project / "runs" / "colab_digits" / "result.json").exists()


def test_it_begins_in_the_project_s_folder_too(notebook, project, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    place = nbformat.v4.new_code_cell("import os; print(os.getcwd(), furs_jax.__file__)")
    notebook.cells = [*code_cells(notebook)[:2], place]
    execute(notebook, project)
    (output,) = notebook.cells[-1].outputs
    assert output.text.split() == [str(project), str(project / "furs_jax" / "__init__.py")]


@pytest.fixture
def first_cell(notebook, tmp_path, monkeypatch):
    """Runs the first cell with a repository, in a folder of its own; returns its commands."""
    source = code_cells(notebook)[0].source

    def run(repository):
        commands = []

        def system(command):
            commands.append(command)
            if command.startswith("git clone"):
                (pathlib.Path("furs_jax") / "launch").mkdir(parents=True)
                (pathlib.Path("furs_jax") / "launch" / "colab.ipynb").touch()

        code = TransformerManager().transform_cell(
            source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
        )
        shell = types.SimpleNamespace(system=lambda text: system(text.format(**names)))
        names = {"get_ipython": lambda: shell, "REPOSITORY": repository}
        exec(compile(code, "cell", "exec"), names)
        return commands

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return run


def test_in_colab_it_is_cloned_and_installed_once(first_cell, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    with pytest.raises(SystemExit, match="set REPOSITORY to the project's git address"):
        first_cell("")
    assert first_cell("https://a/b") == [
        "git clone --quiet https://a/b furs_jax",
        "pip install --quiet --editable .[report]",
    ]
    assert pathlib.Path.cwd() == tmp_path / "furs_jax" == pathlib.Path(sys.path[0])
    assert first_cell("https://a/b") == []
    assert pathlib.Path.cwd() == tmp_path / "furs_jax"


def test_elsewhere_it_says_where_to_open_it(first_cell):
    with pytest.raises(SystemExit, match="open this notebook from the project's folder"):
        first_cell("")


def test_no_line_magic_has_a_comment(notebook):
    """IPython reads a comment behind a magic or a command as part of it."""
    for cell in code_cells(notebook):
        for line in cell.source.splitlines():
            assert not (line.lstrip().startswith(("%", "!")) and "#" in line), line
