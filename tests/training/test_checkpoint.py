"""Checkpoints: what one holds, damage to it, a full disk, and readers beside a writer."""

import gc
import json
import logging
import pathlib
import re
import resource
import shutil

import jax
import numpy as np
import pytest

from furs_jax.errors import DamagedError, WorkdirError
from furs_jax.machine.devices import set_up
from furs_jax.training.checkpoint import Checkpoints

STATE = {name: np.arange(3000, dtype=np.float32).reshape(30, 100) / 7 for name in "ab"}
ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of steps 1 and 2."""
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {key: step * x for key, x in STATE.items()}, {"step": step})
    return tmp_path


def read(folder):
    with Checkpoints(folder, read_only=True) as checkpoints:
        return checkpoints.record(), checkpoints.restore(ABSTRACT)


def files(folder):
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_loggers_of_others_stay_as_they_were(tmp_path, caplog):
    names = ("absl", "asyncio", "jax._src.compiler")
    loggers = [logging.getLogger(name) for name in names]

    def state():
        return [(logger.level, logger.disabled, list(logger.filters)) for logger in loggers]

    before = state()
    set_up()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": np.zeros(3)}, {"step": 1})
        for logger in loggers:
            logger.error("mine")
    assert [record.getMessage() for record in caplog.records] == ["mine"] * len(names)
    assert state() == before


def test_of_late_reads_only_is_nothing_told_after_a_damaged_one(saved, caplog):
    (damaged,) = (path for path in (saved / "2" / "state").iterdir() if path.name.startswith("man"))
    damaged.write_bytes(b"")
    with pytest.raises(DamagedError):
        read(saved)
    caplog.clear()
    told = "Future exception was never retrieved\nfuture: <Future finished exception=ValueError('"
    stores = ('Error reading "a/0.0" in OCDBT database', "Error opening [source=tensorstore/kv.cc]")
    for cause in (*stores, "of somebody else"):
        logging.getLogger("asyncio").error(f"{told}{cause}')>")
    assert [record.getMessage() for record in caplog.records] == [f"{told}of somebody else')>"]


@pytest.mark.parametrize("leave_at_once", [True, False])
def test_what_can_not_be_written_is_one_error_and_the_last_checkpoint_stays(
    tmp_path, leave_at_once, capfd, caplog
):
    state = {name: np.arange(200_000, dtype=np.float32) for name in "xyz"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save() -> None:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(2, {k: x[::-1] ** 1.5 for k, x in state.items()}, {"step": 2})
            if not leave_at_once:
                checkpoints.save(3, state, {"step": 3})

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as if the disk were full
    try:
        with pytest.raises(WorkdirError, match="can't be written: .*same command goes on"):
            save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()  # of what has failed; asyncio reports it then
    assert "Traceback" not in capfd.readouterr().err
    assert [record.getMessage() for record in caplog.records] == []
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.record() == {"step": 1}
        checkpoints.save(2, state, {"step": 2})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.record() == {"step": 2}


def test_a_flipped_bit_of_an_array_is_named_and_the_checkpoint_before_offered(saved):
    data = max((saved / "2/state").rglob("d/*"), key=lambda path: path.stat().st_size)
    whole, used = data.read_bytes(), 0
    for place in np.linspace(0, len(whole) - 1, 12, dtype=int):
        changed = bytearray(whole)
        changed[place] ^= 4
        data.write_bytes(changed)
        try:
            _, state = read(saved)
            np.testing.assert_array_equal(state["a"], 2 * STATE["a"])
            used += 1
        except DamagedError as error:
            message = str(error)
    assert used < 6
    assert re.fullmatch(
        f"checkpoint {saved}/2 is damaged: .*. Delete this folder: then the one before it, of "
        "step 1, is taken",
        message,
    )
    shutil.rmtree(saved / "2")
    record, state = read(saved)
    assert record == {"step": 1}
    np.testing.assert_array_equal(state["b"], STATE["b"])


def test_arrays_are_compared_with_their_digests(saved, monkeypatch):
    """Where nothing between the disk and the array notices."""
    restore = Checkpoints._state

    def flipped(*arguments):
        state = {key: np.array(x) for key, x in restore(*arguments).items()}
        state["b"].view(np.uint32)[3, 5] ^= 1
        return state

    monkeypatch.setattr(Checkpoints, "_state", flipped)
    with pytest.raises(DamagedError, match=r"2 is damaged: \['b'\] float32.* not as it was saved"):
        read(saved)


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "overwritten", "a folder"])
def test_a_damaged_file_of_a_checkpoint_is_one_line(saved, damage, capfd, caplog):
    whole = files(saved / "2")
    for name, content in whole.items():
        path = pathlib.Path(name)
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage != "removed":
            kept = {"emptied": b"", "cut": content[: len(content) // 2]}
            path.write_bytes(kept.get(damage, b"{damaged\n" + content[9:]))
        try:
            _, state = read(saved)
            np.testing.assert_array_equal(state["a"], 2 * STATE["a"])
        except DamagedError as error:
            line = str(error)
            assert line.startswith(f"checkpoint {saved}/2 is damaged: ")
            assert "\n" not in line
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)
    gc.collect()  # what Orbax left to be reported
    assert capfd.readouterr().err == ""
    assert [record.getMessage() for record in caplog.records] == []


def test_a_reader_changes_nothing(saved):
    save = saved / "3.orbax-checkpoint-tmp"  # of a process that is writing
    save.mkdir()
    (save / "part").write_text("half of the state")
    before = files(saved)
    assert read(saved)[0] == {"step": 2}
    assert files(saved) == before
    with Checkpoints(saved / "nowhere", read_only=True) as checkpoints:
        assert checkpoints.record() is None
    assert not (saved / "nowhere").exists()


def test_a_reader_goes_on_with_the_newer_one_when_its_own_is_removed(saved, monkeypatch):
    read_json, seen = Checkpoints._json, []

    def remove_then_read(self, step):
        seen.append(step)
        if step == 2:
            (saved / "2").rename(saved / "3")  # stands for a save of the next step
        return read_json(self, step)

    monkeypatch.setattr(Checkpoints, "_json", remove_then_read)
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert checkpoints.record() == {"step": 2}
    assert seen == [2, 3]


def test_the_last_two_are_kept(saved):
    with Checkpoints(saved) as checkpoints:
        checkpoints.save(3, STATE, {"step": 3})
    assert sorted(path.name for path in saved.iterdir()) == ["2", "3"]


def test_checkpoints_of_versions_before_digests_are_read(saved):
    path = saved / "2/json/metadata"
    content = json.loads(path.read_text())
    del content["digests"], content["crc32"]
    path.write_text(json.dumps(content))
    record, state = read(saved)
    assert record == {"step": 2}
    np.testing.assert_array_equal(state["a"], 2 * STATE["a"])
