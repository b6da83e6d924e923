"""What is seen while a run is waited for, on a terminal and in a file."""

import io
import re
from contextlib import redirect_stderr

import pytest

from furs_jax.methods._following import round_line
from furs_jax.run import console as module
from furs_jax.run.console import WIDTH, Console
from furs_jax.run.tables import result_table
from furs_jax.run.text import wrapped
from tests.fake_runs import fake_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """All that was ever seen, without what a bar draws between."""
        return [line for line in re.split(r"[\r\n]+", self.getvalue()) if line.strip()]


@pytest.fixture(autouse=True)
def wide(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


def test_the_wait_for_a_program_says_so():
    """There is no bar at 0/340 while nothing can move, and no speed that includes the wait."""
    console = Console()
    console.expect(3600)
    with redirect_stderr(Terminal()) as terminal, console.waiting("round 1/2, compiling"):
        assert "round 1/2, compiling, 00:0" in terminal.shown()[-1]
    with (
        redirect_stderr(Terminal()) as terminal,
        console.progress("round 1/2", 340, 20) as progress,
    ):
        progress.step(0)
        assert all("compiling" in line and "340" not in line for line in terminal.shown())
        for step in range(1, 18):
            progress.step(step)
        progress.epoch({"epoch": 1, "loss": 0.53124})
        progress._bar.refresh()
        last = terminal.shown()[-1]
    assert "compiling" not in last
    assert re.match(r"round 1/2, epoch 2/20, loss 0.531, all done ~[\w: ]+ +5%\|.*\| 17/340", last)
    assert max(map(len, terminal.shown())) <= WIDTH


def test_a_training_that_goes_on_counts_from_there():
    with redirect_stderr(Terminal()) as terminal, Console().progress("final", 100, 10) as progress:
        progress.step(60)
        progress.step(61)
        progress._bar.refresh()
        assert progress._bar.initial == 60  # of which no speed is told
        assert "| 61/100" in terminal.shown()[-1]


def test_a_file_gets_a_line_in_a_minute_and_no_bar(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    console = Console()
    with console.progress("round 1/2", 340, 20) as progress:
        for epoch in range(1, 13):
            now[0] += 20
            progress.epoch({"epoch": epoch, "loss": 1 / epoch})
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        f"round 1/2, epoch {epoch + 1}/20, loss {1 / epoch:.3f}" for epoch in (3, 6, 9, 12)
    ]


def test_quiet_shows_nothing(capsys):
    console = Console(quiet=True)
    with (
        redirect_stderr(Terminal()) as terminal,
        console.waiting("x"),
        console.progress("x", 3, 1) as progress,
    ):
        progress.step(0)
        progress.step(1)
        progress.epoch({"epoch": 1})
    assert terminal.getvalue() == capsys.readouterr().out == ""


def test_lines_fit(tmp_path, capsys):
    run = fake_run(tmp_path / "r", network="resnet110_cifar", width=1.0, start=[14] * 108)
    seconds = {"train": 1234, "furs": 123, "compile": 12, "compile_hidden": 77}
    scores = {"train_loss": 0.1, "search_loss": 0.2, "search_accuracy": 0.3, "seconds": seconds}
    console = Console()
    console.print(result_table(run.result))
    console.print(round_line({**run.rounds[0], **scores}, 10))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    words = " ".join(lines).split()
    assert " ".join(map(str, run.result["searched"]["channels"])) in " ".join(words)


def test_what_is_broken_keeps_its_words_and_tables():
    text = "short\n\n" + "a  b " * 30 + "\n" + "x" * 120
    broken = wrapped(text, 100).split("\n")
    assert broken[:2] == ["short", ""]
    assert "".join(broken).replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert "x" * 120 in "".join(broken)  # a path stays one word
