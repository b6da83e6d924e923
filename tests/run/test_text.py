"""Text of a run's files, which may be somebody else's, in every output of the report."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.text import Text

from furs_jax import report
from furs_jax.report.__main__ import _unique_names, main
from furs_jax.report.table4 import comparison
from furs_jax.run.tables import format_table
from furs_jax.run.text import csv_text, markdown, printable
from tests.fake_runs import fake_run, rewrite
from tests.report.test_table4 import csv_rows

NASTY = (
    "=cmd|' $x_{$ `rm` <script>a&b<script> ![i](x) \x1b[31m\n\r\u202e \udc80 \x00 _em_ **b** ~~s~~"
)


def nasty_run(path):
    """Every text in its files, and the name of its folder."""
    run = fake_run(path / re.sub("[\0/\udc80]", "", NASTY), trained=4)

    def change(content):
        content["config"]["network"] = content["network"]["name"] = f"mod:{NASTY}"
        content["config"]["data"]["name"] = f"folder:/data/{NASTY}"
        for row in content["network"]["layers"]:
            row["name"] = f"{row.get('site')}{NASTY}"

    return rewrite(run, "config.json", change)


def test_no_text_of_a_run_s_files_means_anything_to_a_spreadsheet(tmp_path):
    run = nasty_run(tmp_path)
    rows = csv_rows(comparison([run]))
    assert len(rows) == 2
    texts = {key: rows[0][key] for key in ("network", "data", "source")}
    assert all(text.startswith("'=cmd|") for text in texts.values()), texts
    assert comparison([run]).csv().count("\n") == 3


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", " =1", "\N{FULLWIDTH EQUALS SIGN}1"])
def test_what_looks_like_a_formula_is_quoted(text):
    assert csv_text(text).startswith("'")


def test_a_negative_number_stays_one(tmp_path):
    table = comparison([fake_run(tmp_path / "r", top1=(0.9, 0.8))])
    rows = csv_rows(table)
    assert float(rows[1]["top1_difference"]) == pytest.approx(-0.1)
    assert csv_text("resnet8_cifar 0.5x") == "resnet8_cifar 0.5x"


def test_no_text_of_a_run_s_files_means_anything_in_markdown(tmp_path, capsys):
    run = nasty_run(tmp_path)
    main([str(run.path)])
    output = capsys.readouterr()
    page = (run.path / "report" / "report.md").read_text()
    for text in (page, output.out, output.err):
        assert all(c.isprintable() or c == "\n" for c in text)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [11] * 4
    body = page.partition("![accuracy]")[0]
    assert not re.search(r"(?<!\\)[`$*~\[\]]|<|(?<!\\)_em", body.replace("[31m", "[31m")), body
    assert page.count("# ") == 1
    assert [line for line in page.splitlines() if line.startswith("![")] == [
        f"![{name}]({name}.png)"
        for name in ("accuracy", "accuracy_params", "network", "furs", "channels")
    ]


def test_plain_names_need_no_escape():
    for name in ("resnet8_cifar 0.5x", "tfds:cifar100", "cars (2024), 3 seeds", "±", "Ünïcode"):
        assert markdown(name) == name == printable(name) == csv_text(name)


def test_several_nasty_runs_keep_their_figures_apart(tmp_path):
    runs = [fake_run(tmp_path / name, rounds=0, trained=0) for name in ("a)b", "a b", "-x" * 100)]
    names = _unique_names(runs)
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"\w[\w.,=+-]{0,110}", name) for name in names)


def test_columns_hold_no_control_characters():
    text = format_table(("name", "n"), [(NASTY, 1)])
    assert len(text.split("\n")) == 3
    assert all(c.isprintable() or c == "\n" for c in text)


def test_a_dollar_is_a_dollar_in_figures(tmp_path):
    """Also where a notebook draws the figure, with its own settings."""
    run = nasty_run(tmp_path)
    figures = [
        report.draw_accuracy([run]),
        report.draw_furs(run),
        report.draw_channels(run),
        report.draw_network(run.network, run.original, run.channels),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert all(t.get_text().isprintable() or "\n" in t.get_text() for t in texts)
        dollars = [text for text in texts if "$" in text.get_text()]
        assert dollars
        assert not any(text.get_parse_math() for text in dollars)


def test_an_svg_holds_the_text(tmp_path):
    run = nasty_run(tmp_path)
    paths = report.save(report.draw_accuracy([run]), tmp_path / "f")
    texts = {e.text for e in ElementTree.parse(paths[1]).iter("{http://www.w3.org/2000/svg}text")}
    assert any("<script>" in (text or "") for text in texts)  # as text, not as an element
    assert "<script" not in paths[1].read_text()
