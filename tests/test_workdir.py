"""A run's folder: lines cut off by a kill, one process at a time."""

import multiprocessing
import os

import pytest

from furs_jax.errors import ConfigError, WorkdirBusyError, WorkdirError
from furs_jax.workdir import Journal, Workdir, read_json, write_json


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    assert journal.read() == []
    journal.append({"a": 1})
    whole = journal.path.read_text() + '{"a": 2}\n'
    for end in range(len(whole)):
        journal.path.write_text(whole[:end])
        records = journal.read()
        assert records == [{"a": 1}, {"a": 2}][: whole[:end].count("\n")]
        journal.append({"a": 3})
        assert journal.read() == [*records, {"a": 3}]


def test_unwanted_lines_are_dropped(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    for value in range(5):
        journal.append({"a": value})
    journal.keep(lambda record: record["a"] % 2)
    assert journal.read() == [{"a": 1}, {"a": 3}]


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}


def _try_to_open(path, queue):
    try:
        Workdir(path, {"a": 1})
        queue.put("opened")
    except WorkdirError as error:
        queue.put(str(error))


def test_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()

    def other() -> str:
        process = context.Process(target=_try_to_open, args=(tmp_path, queue))
        process.start()
        answer = queue.get(timeout=60)
        process.join()
        return answer

    folder = Workdir(tmp_path, {"a": 1})
    folder.start({"a": 1}, {})
    assert "in use by another process" in other()
    folder.close()
    assert other() == "opened"


def test_a_folder_is_made_when_the_run_starts_not_before(tmp_path):
    path = tmp_path / "runs" / "new"
    Workdir(path, {"a": 1}).close()
    assert list(tmp_path.iterdir()) == []
    folder = Workdir(path, {"a": 1})
    folder.start({"a": 1}, {})
    assert sorted(os.listdir(path)) == [".lock", "config.json"]


def test_of_two_that_begin_at_once_one_is_refused(tmp_path):
    same, other = Workdir(tmp_path, {"a": 1}), Workdir(tmp_path, {"a": 2})
    first = Workdir(tmp_path, {"a": 1})
    first.start({"a": 1}, {})
    with pytest.raises(WorkdirBusyError):
        same.start({"a": 1}, {})
    same.close()
    first.close()
    with pytest.raises(WorkdirError, match=r"differs in config.a \(1 there, 2 here\)"):
        other.start({"a": 2}, {})


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match=r"file is a file; give another folder"):
        Workdir(tmp_path / "file" / "run", {})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WorkdirError, match=r"not yours to write to"):
        Workdir(tmp_path / "run", {})


def test_differences_are_named(tmp_path):
    config = {"x": {"a": 1, "b": [1]}, "y": 2}
    folder = Workdir(tmp_path, config)
    folder.start(config, {"versions": {"jax": "1"}})
    assert folder.start(config, {"versions": {"jax": "2"}}) == {"versions": {"jax": "1"}}
    folder.close()
    with pytest.raises(WorkdirError, match=r"config.x.b \(\[1\] there, \[2\] here\), config.z"):
        Workdir(tmp_path, {"x": {"a": 1, "b": [2]}, "y": 2, "z": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="is a file"):
        Workdir(tmp_path / "file", config)


def test_a_run_that_stored_relative_paths_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = {"init_from": "runs/a/checkpoints/final", "data": {"name": "folder:images"}}
    folder = Workdir("w", stored)
    folder.start(stored, {})
    folder.close()
    given = {
        "init_from": f"{tmp_path}/runs/a/checkpoints/final",
        "data": {"name": f"folder:{tmp_path}/images"},
    }
    monkeypatch.chdir("/")
    with pytest.raises(WorkdirError, match=r"config.init_from \(runs/a/.* there, /.* here\)"):
        Workdir(tmp_path / "w", given)
    monkeypatch.chdir(tmp_path)
    Workdir("w", given).close()
    with pytest.raises(WorkdirError, match=r"config.data.name \(folder:images there, idx:"):
        Workdir("w", given | {"data": {"name": f"idx:{tmp_path}/images"}})
    with pytest.raises(ConfigError, match="workdir=gs://w is an address"):
        Workdir("gs://w", given)


def test_what_does_not_influence_the_result_may_change(tmp_path):
    config = {"data": {"workers": 0, "name": "digits"}, "checkpoint_seconds": 10.0}
    folder = Workdir(tmp_path, config)
    folder.start(config, {})
    folder.close()
    Workdir(tmp_path, {"data": {"workers": 8, "name": "digits"}, "checkpoint_seconds": 1.0}).close()
    with pytest.raises(WorkdirError, match=r"differs in config.data.name \(digits there, x here\)"):
        Workdir(tmp_path, {"data": {"workers": 8, "name": "x"}, "checkpoint_seconds": 1.0})
