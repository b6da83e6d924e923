"""Event files, read by their format."""

import builtins
import collections
import json
import pathlib
import struct

import pytest

from furs_jax.errors import MissingExtraError
from furs_jax.report.__main__ import main
from furs_jax.report.run_record import read_run
from furs_jax.report.tensorboard import write_events
from tests.fake_runs import fake_run


def written(folder: pathlib.Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(group, tag) -> (step, value) of every event in every file, doubles too."""
    from tensorboardX.proto.event_pb2 import Event

    found = collections.defaultdict(list)
    for path in folder.rglob("events.out.tfevents.*"):
        content = path.read_bytes()
        while content:  # a length of 8 bytes, its checksum, the event, its checksum
            size = struct.unpack("<Q", content[:8])[0]
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                key = (str(path.parent.relative_to(folder)), value.tag)
                found[key].append((event.step, value.simple_value))
    return found


def with_epochs(run, count: int):
    epochs = [
        {"phase": "round_00", "epoch": e, "step": 17 * e, "loss": 1 / e, "seconds": 2.0 * e}
        for e in range(1, count + 1)
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in epochs))
    return read_run(run.path)


def test_every_point_is_there_once_however_often_it_is_written(tmp_path):
    run, folder = fake_run(tmp_path / "r"), tmp_path / "events"
    for count in (2, 4, 4):  # as a run goes on
        for path in folder.rglob("events*"):  # written in an earlier second
            path.rename(path.with_name(f"events.out.tfevents.{count}.host.furs_jax"))
        run = with_epochs(run, count)
        write_events(run, folder)
    found = written(folder)
    losses = [pytest.approx(1 / epoch) for epoch in range(1, 5)]
    expected = list(zip((17, 34, 51, 68), losses, strict=True))
    assert found["round_00", "by_step/loss"] == expected
    assert found["round_00", "by_epoch/loss"] == list(zip((1, 2, 3, 4), losses, strict=True))
    for site, name in enumerate(("1.1.1", "1.1.2")):
        furs = [pytest.approx(line["furs"][site]) for line in run.rounds]
        assert found["rounds", f"furs/{name}"] == list(zip((1, 2), furs, strict=True))
        vectors = [run.rounds[0]["channels"], *(line["next_channels"] for line in run.rounds)]
        widths = [vector[site] for vector in vectors]
        assert found["rounds", f"channels/{name}"] == list(zip((1, 2, 3), widths, strict=True))
    scores = [seed["top1"] for seed in run.result["searched"]["seeds"]]
    assert [value for _, value in found["final_searched", "test/top1"]] == pytest.approx(scores)


def test_what_others_have_written_stays(tmp_path):
    run, folder = fake_run(tmp_path / "r"), tmp_path / "events"
    other = folder / "round_00" / "events.out.tfevents.1.host"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    write_events(run, folder)
    assert other.exists()


def test_the_command_writes_events_with_the_figures(tmp_path):
    run = fake_run(tmp_path / "r", rounds=1)
    main([str(run.path), f"--tensorboard={tmp_path / 'events'}"])
    tags = {tag for group, tag in written(tmp_path / "events") if group == "pictures"}
    assert tags == {"accuracy", "accuracy_params", "network", "furs", "channels"}


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    load = builtins.__import__

    def without(name, *rest):
        if name.startswith("tensorboardX"):
            raise ImportError(name=name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"\[tensorboard\]"):
        write_events(fake_run(tmp_path / "r"), tmp_path / "events")
