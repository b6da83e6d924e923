"""A run's journals as event files of TensorBoard (extra `tensorboard`), without TensorFlow.

They are made from the journals' lines and not while training, so that a run that was stopped and
gone on with has every point once, and that nothing about them can harm a run. Made again, they
take the place of those that were made before.
"""

import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from furs_jax.errors import MissingExtraError
from furs_jax.report.captions import short_names
from furs_jax.report.run_record import METRICS, RunRecord
from furs_jax.run.lines import round_phase

Record = dict[str, Any]

_SUFFIX = ".furs_jax"  # of the files that may be replaced
_PER_SITE = ("furs", "furs_stderr", "channels")


class Point(NamedTuple):
    """A value of one curve."""

    group: str  # folder: what TensorBoard calls a run
    tag: str
    step: int
    value: float
    seconds: float  # since the run began, as far as trainings and rounds tell


def points(run: RunRecord) -> Iterator[Point]:
    """All that the journals tell: metrics by step and by epoch, rounds, final trainings by seed."""
    spent, last, begun = 0.0, "", 0.0
    of_phases, names = _site_names(run)
    for line in run.epochs:
        own = of_phases.get(line["phase"], names)
        if line["phase"] != last:
            last, begun = line["phase"], spent
        spent = begun + line.get("seconds", 0.0)
        for tag, value in _numbers(line, own, ("phase", "epoch", "step", "seconds")):
            yield Point(last, f"by_epoch/{tag}", line["epoch"], value, spent)
            if "step" in line:
                yield Point(last, f"by_step/{tag}", line["step"], value, spent)
    for line in run.lines:
        own = of_phases.get(round_phase(line["round"]), names)
        for tag, value in _numbers(line, own, ("round", "seconds")):
            yield Point("rounds", tag, line["round"] + 1, value, spent)
    for line in run.rounds[-1:]:
        own = short_names(run.site_names(line.get("next_depths")))
        for name, width in zip(own, line["next_channels"], strict=True):
            yield Point("rounds", f"channels/{name}", line["round"] + 2, width, spent)
    for line in run.finals:
        for tag in (*METRICS, "loss"):
            yield Point(f"final_{line['network']}", f"test/{tag}", line["seed"], line[tag], spent)


def _site_names(run: RunRecord) -> tuple[dict[str, list[str]], list[str]]:
    """Of each round's network, where blocks move, by its phase; and those of all others."""
    of_phases = {}
    for line in run.rounds:
        for index, key in ((line["round"], "depths"), (line["round"] + 1, "next_depths")):
            if key in line:
                of_phases[round_phase(index)] = short_names(run.site_names(line[key]))
    return of_phases, short_names(run.site_names())


def _numbers(line: Record, names: list[str], skip: Iterable[str]) -> Iterator[tuple[str, float]]:
    """A line's numbers, those of sites by the sites' names."""
    for key, value in line.items():
        if key not in skip and type(value) in (int, float):
            yield key, float(value)
        elif key in _PER_SITE and value and len(value) == len(names):
            yield from ((f"{key}/{name}", float(v)) for name, v in zip(names, value, strict=True))


def write_events(
    run: RunRecord, folder: pathlib.Path, pictures: Iterable[pathlib.Path] = ()
) -> None:
    """Writes a folder for each training, one for the rounds and one for each network's tests.

    Args:
      run: whose journals.
      folder: for `tensorboard --logdir`; other files in it stay as they are.
      pictures: PNG files to be shown, too.

    Raises:
      MissingExtraError: no tensorboardX.
    """
    try:
        from tensorboardX import FileWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
    except ImportError as error:
        raise MissingExtraError("files of TensorBoard", "tensorboardX", "tensorboard") from error
    for old in folder.rglob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    begun = (run.path / "config.json").stat().st_mtime
    writers: dict[str, FileWriter] = {}

    def add(group: str, step: int, seconds: float, value: Summary.Value) -> None:
        if group not in writers:
            writers[group] = FileWriter(str(folder / group), filename_suffix=_SUFFIX)
            # What an open TensorBoard has read of an earlier file is forgotten.
            start = Event(session_log=SessionLog(status=SessionLog.START))
            writers[group].add_event(start, step=0, walltime=begun)
        writers[group].add_summary(Summary(value=[value]), step, begun + seconds)

    for group, tag, step, number, seconds in points(run):
        add(group, step, seconds, Summary.Value(tag=tag, simple_value=number))
    for path in pictures:
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])  # of PNG's header
        image = Summary.Image(
            height=height, width=width, colorspace=4, encoded_image_string=content
        )
        add("pictures", 0, 0.0, Summary.Value(tag=path.stem, image=image))
    for writer in writers.values():
        writer.close()
