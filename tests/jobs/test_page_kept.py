"""The page while a run goes on: written after every round, cheap, and harmless when it fails."""

import pytest

from furs_jax.errors import StoppedError
from furs_jax.jobs import harness
from furs_jax.jobs.search import search
from furs_jax.machine import hosts
from furs_jax.networks.recording import record_network
from furs_jax.report import watch as module
from furs_jax.report.page import PAGE
from furs_jax.report.watch import Watch
from furs_jax.run.console import Console
from tests.fake_runs import fake_run
from tests.jobs.recorded import small
from tests.small_runs import timeless


@pytest.fixture
def pages(recording, monkeypatch) -> list[tuple[str, int, int, bool]]:
    """How far the run was when a page was written: (state, rounds, finals, whether it goes on)."""
    written = []
    write = module.write_page

    def note(run, path, runs):
        state = "finished" if run.result else "unfinished"
        written.append((state, len(run.rounds), len(run.finals), runs))
        write(run, path, runs)

    monkeypatch.setattr(module, "write_page", note)
    monkeypatch.setattr(harness, "record_network", record_network)
    return written


def test_a_page_is_written_after_every_round_and_training(pages, tmp_path):
    result = search(small(), tmp_path / "w", quiet=True)
    expected = [("unfinished", rounds, 0, True) for rounds in range(4)]
    expected += [("unfinished", 3, finals, True) for finals in range(1, 5)]
    assert list(dict.fromkeys(pages)) == [*expected, ("finished", 3, 4, False)]
    html = (tmp_path / "w" / PAGE).read_text()
    assert f"{result['searched']['macs']:,}" in html
    assert "Finished" in html
    count = len(pages)
    search(small(), tmp_path / "w", quiet=True)
    assert len(pages) == count  # it is there
    (tmp_path / "w" / PAGE).unlink()
    search(small(), tmp_path / "w", quiet=True)
    assert (tmp_path / "w" / PAGE).read_text() == html


def test_a_page_that_fails_is_one_line_and_changes_nothing(pages, tmp_path, monkeypatch, capsys):
    expected = search(small(), tmp_path / "a", quiet=True)

    def fail(*_):
        raise ZeroDivisionError("of\nthe page")

    monkeypatch.setattr(module, "write_page", fail)
    assert timeless(search(small(), tmp_path / "b")) == timeless(expected)
    printed = capsys.readouterr().out
    notes = [line for line in printed.splitlines() if "not kept" in line]
    assert len(notes) == 1
    assert "the page" in printed


def test_a_run_that_is_stopped_says_so_on_its_page(pages, tmp_path, monkeypatch):
    def stop(*_):
        raise StoppedError("stopped", 143)

    monkeypatch.setattr("furs_jax.run.phases.train", stop)
    with pytest.raises(StoppedError):
        search(small(), tmp_path / "w", quiet=True)
    assert "The run has stopped" in (tmp_path / "w" / PAGE).read_text()
    assert pages[-1] == ("unfinished", 0, 0, False)


def test_a_signal_while_the_page_is_written_is_not_lost(tmp_path, monkeypatch):
    def stop(*_):
        raise StoppedError("stopped", 143)

    monkeypatch.setattr(module, "write_page", stop)
    with pytest.raises(StoppedError):
        Watch(fake_run(tmp_path / "r").path, Console()).look()


def test_what_a_page_takes_is_a_small_share(tmp_path, monkeypatch):
    now, count = [0.0], [0]

    def write(*_):
        now[0] += 1.0  # a slow disk, or a page of many rounds
        count[0] += 1

    monkeypatch.setattr(module, "write_page", write)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    watch = Watch(fake_run(tmp_path / "r").path, Console())
    for _ in range(1000):  # epochs of a second
        now[0] += 1.0
        watch.glance()
    assert 0.015 * now[0] < count[0] < 0.021 * now[0]


def test_the_page_is_one_process_s_own(tmp_path, monkeypatch):
    """What it reads is told to no other, which would wait for what no one asks."""

    def tell(_):
        raise AssertionError("told the others")

    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "_broadcast", tell)
    path = fake_run_of_one_host(tmp_path, monkeypatch)
    watch = Watch(path, Console())
    watch.look()
    assert watch.page.exists()
    watch.page.unlink()
    monkeypatch.setattr(hosts, "index", lambda: 1)
    watch.look()
    assert not watch.page.exists()
    with pytest.raises(AssertionError, match="told the others"):
        hosts.from_first(lambda: 1)


def fake_run_of_one_host(tmp_path, monkeypatch):
    with monkeypatch.context() as one:
        one.setattr(hosts, "count", lambda: 1)
        return fake_run(tmp_path / "r").path


def test_the_last_lines_say_where_all_is(pages, tmp_path, capsys):
    search(small(), tmp_path / "w")
    told = " ".join(capsys.readouterr().out.split())  # a long path has a line of its own
    assert f" page {tmp_path / 'w' / PAGE} " in told
    assert told.endswith(f" result {tmp_path / 'w' / 'result.json'}")
