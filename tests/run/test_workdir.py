"""A run's folder: lines cut off by a kill, one process at a time."""

import copy
import functools
import json
import multiprocessing
import os
import shutil

import pytest

from benchmarks.killer import Killer, in_child
from furs_jax.config_files import default_config
from furs_jax.errors import (
    ConfigError,
    DamagedError,
    DivergedError,
    WorkdirBusyError,
    WorkdirError,
)
from furs_jax.machine.sealed import read_json, read_text, write_json
from furs_jax.options.parse import as_record, parse
from furs_jax.run.folder import Workdir
from furs_jax.run.journal import Journal


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


def test_a_line_is_added_without_reading_those_before(tmp_path, monkeypatch):
    reads = []

    def counted(path):
        reads.append(path)
        return read_text(path)

    monkeypatch.setattr("furs_jax.run.journal.read_text", counted)
    journal = Journal(tmp_path / "j.jsonl")
    for value in range(20):
        journal.append({"a": value})
    assert reads == []
    journal.path.write_text(journal.path.read_text()[:-1])  # cut off meanwhile
    journal.append({"a": 20})
    assert reads
    assert [record["a"] for record in journal.read()] == [*range(19), 20]


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


@pytest.mark.parametrize("lacking", ["method", "kd.alpha", "kd", "final.train.nesterov"])
def test_a_run_of_a_version_without_an_option_goes_on_with_its_default(tmp_path, lacking):
    config = default_config()
    given = as_record(parse(config))
    stored = copy.deepcopy(given)
    *groups, name = lacking.split(".")
    functools.reduce(dict.get, groups, stored).pop(name)
    folder = Workdir(tmp_path / "w", stored)
    folder.start(stored, {})
    folder.close()
    Workdir(tmp_path / "w", given).close()
    other = {"method": "my:Method", "kd.alpha": 0.5, "kd": 0.5, "final.train.nesterov": True}
    option = "kd.alpha" if lacking == "kd" else lacking
    config.update_from_flattened_dict({option: other[lacking]})
    with pytest.raises(WorkdirError, match=rf"config.{option} \(.* there, {other[lacking]} here\)"):
        Workdir(tmp_path / "w", as_record(parse(config)))
    (tmp_path / "v").mkdir()
    write_json(tmp_path / "v" / "config.json", {"config": {**given, "unknown": 1}})
    with pytest.raises(WorkdirError, match="config.unknown"):  # of a later version
        Workdir(tmp_path / "v", given)


def test_what_does_not_influence_the_result_may_change(tmp_path):
    config = {"data": {"workers": 0, "name": "digits"}, "checkpoint_seconds": 10.0}
    folder = Workdir(tmp_path, config)
    folder.start(config, {})
    folder.close()
    Workdir(tmp_path, {"data": {"workers": 8, "name": "digits"}, "checkpoint_seconds": 1.0}).close()
    with pytest.raises(WorkdirError, match=r"differs in config.data.name \(digits there, x here\)"):
        Workdir(tmp_path, {"data": {"workers": 8, "name": "x"}, "checkpoint_seconds": 1.0})


def journal_of(path, *records) -> Journal:
    journal = Journal(path)
    for record in records:
        journal.append(record)
    return journal


def test_no_byte_can_change_unseen(tmp_path):
    """Whatever is read of a file with one bit flipped is what was written, or an error."""
    records = [{"a": 1, "seed": 0}, {"a": 2.5, "seed": 1}]
    journal = journal_of(tmp_path / "j.jsonl", *records)
    write_json(tmp_path / "x.json", {"config": {"a": 1}})
    read = {
        journal.path: (journal.read, records),
        tmp_path / "x.json": (lambda: read_json(tmp_path / "x.json"), {"config": {"a": 1}}),
    }
    for path, (make, written) in read.items():
        data = path.read_bytes()
        for place, bit in ((place, bit) for place in range(len(data)) for bit in range(8)):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            found, said = read_or_message(make)
            if place == len(data) - 1 and isinstance(written, list):
                assert found in (written, written[:-1], None)  # no new line: a line cut off
            else:
                assert found in (written, None)
            assert found is not None or (str(path) in said and "\n" not in said)


def read_or_message(read):
    try:
        return read(), ""
    except DamagedError as error:
        return None, str(error)


def test_a_changed_line_is_named(tmp_path):
    journal = journal_of(tmp_path / "j.jsonl", *({"a": value} for value in range(4)))
    lines = journal.path.read_text().splitlines(keepends=True)
    unsealed = json.dumps({"a": 4}) + "\n"
    for number, wrong in (
        (2, [lines[0], *lines[2:]]),  # cut
        (1, lines[1:]),
        (5, [*lines, lines[-1]]),  # doubled
        (3, [*lines[:2], lines[3], lines[2]]),  # swapped
        (5, [*lines, unsealed]),  # written by hand
        (3, [*lines[:2], lines[2].replace('"a": 2', '"a": 3'), lines[3]]),  # edited
        (1, ["[]\n", *lines]),
        (1, ['{"a": NaN}\n']),
        (1, ['{"a": 1e999}\n']),
    ):
        journal.path.write_text("".join(wrong))
        with pytest.raises(DamagedError, match=rf"j.jsonl is damaged in line {number}: .*delete"):
            journal.read()
    journal.path.write_bytes(b"\xff\n")
    with pytest.raises(DamagedError, match="byte 0 is no text"):
        journal.read()
    journal.path.unlink()
    journal.path.mkdir()
    with pytest.raises(DamagedError, match="can't be read"):
        journal.read()


def test_files_of_versions_before_digests_are_read(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.path.write_text('{"a": 1}\n{"a": 2}\n')
    assert journal.read() == [{"a": 1}, {"a": 2}]
    journal.append({"a": 3})
    assert journal.read() == [{"a": 1}, {"a": 2}, {"a": 3}]
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_timings_are_not_in_a_line_s_digest(tmp_path):
    """Two runs of one config have the same digests."""
    digests = []
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        journal = journal_of(tmp_path / name, *({"a": a, "seconds": seconds} for a in range(2)))
        lines = journal.path.read_text().splitlines()
        digests.append([json.loads(line)["crc32"] for line in lines])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 2


def test_what_is_not_finite_is_never_written(tmp_path):
    for write in (
        lambda: write_json(tmp_path / "x.json", {"a": {"b": [1.0, float("nan")]}}),
        lambda: Journal(tmp_path / "x.json").append({"a": {"b": [1.0, float("inf")]}}),
    ):
        with pytest.raises(DivergedError, match=r"a.b.1 is (nan|inf), and can't be recorded"):
            write()
    assert os.listdir(tmp_path) == []


def test_a_damaged_config_is_one_line(tmp_path):
    config = {"a": 1}
    folder = Workdir(tmp_path / "w", config)
    folder.start(config, {})
    folder.close()
    for text in ("", "{", "[]", "null", '{"versions": 1}', '{"config": 1}', "[" * 100_000):
        folder.config.write_text(text)
        with pytest.raises(DamagedError, match="config.json is damaged: .*another folder"):
            Workdir(folder.path, config)


def begun_run(path, config):
    """What a run does with its folder, but for computing: goes on where it was."""
    folder = Workdir(path, config)
    folder.start(config, {"versions": {}})
    done = len(folder.finals.read())
    for seed in range(done, 2):
        folder.metrics.keep(lambda record, seed=seed: record["epoch"] <= seed)
        folder.metrics.append({"phase": "p", "epoch": seed + 1})
        scores = {"loss": 0.5, "top1": 0.5, "top5": 1.0}
        folder.finals.append({"network": "x", "seed": seed, **scores})
    write_json(folder.result, {"seeds": 2})
    folder.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="reads descriptors' paths there")
def test_killed_at_any_write_rename_or_fsync_the_same_command_goes_on(tmp_path):
    config, folder = {"a": 1}, tmp_path / "w"
    calls = tmp_path / "calls"

    def work(at=-1):
        killer = Killer(folder, at)
        killer.install()
        begun_run(folder, config)
        calls.write_text(json.dumps(killer.calls))

    assert in_child(work)[0] == 0
    whole = {path.name: path.read_text() for path in folder.iterdir()}
    names = json.loads(calls.read_text())
    assert {"mkdir", "open", "torn write", "fsync", "replace"} <= set(names)
    for at in range(len(names)):
        shutil.rmtree(folder)
        assert in_child(lambda at=at: work(at))[0] == 137
        begun_run(folder, config)
        assert {path.name: path.read_text() for path in folder.iterdir()} == whole, names[at]
