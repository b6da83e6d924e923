"""The notebook: clean, and its digits part runs in a fresh kernel."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

from tests.runs import FAST_COMPILATION

ROOT = pathlib.Path(__file__).parents[1]

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


def test_the_digits_part_shows_tables_and_figures(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", FAST_COMPILATION)
    (search,) = [i for i, cell in enumerate(notebook.cells) if "furs_jax.search" in cell.source]
    smaller = nbformat.v4.new_code_cell(f"config.update_from_flattened_dict({TINY})")
    notebook.cells.insert(search, smaller)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = {
        cell.source: kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
        if kind in ("image/png", "text/markdown")
    }
    assert shown == {
        "report.comparison([run])": "text/markdown",
        "report.draw_network(run.network, run.original, run.channels)": "image/png",
        "report.draw_furs(run)": "image/png",
        "report.draw_channels(run)": "image/png",
        "report.draw_accuracy([run])": "image/png",
        'report.published_table("cifar100")': "text/markdown",
    }
    assert (tmp_path / "runs" / "colab_digits" / "result.json").exists()
