"""A run on one page: report/index.html, self-contained, without scripts, server or network."""

import datetime
import fcntl
import importlib.resources
import os
import pathlib
import shlex
from typing import Any, NamedTuple

from furs_jax.errors import WorkdirError
from furs_jax.options.given import PREFIX
from furs_jax.options.parse import defaults, flat
from furs_jax.options.units import amount
from furs_jax.report import outcome, sections
from furs_jax.report.command import run_command
from furs_jax.report.markup import Markup, element, join
from furs_jax.report.network_section import network_blocks
from furs_jax.report.run_record import RunRecord
from furs_jax.report.table4 import method_title
from furs_jax.run.folder import Files
from furs_jax.run.forecast import clock, duration

PAGE = pathlib.Path("report", "index.html")  # in a run's folder
_AGAIN = 20  # seconds after which a browser reads the page of a running run again
_MOST_CLASSES = 30  # whose names are shown


class Moment(NamedTuple):
    """When a page is written, and of what."""

    written: datetime.datetime  # the page, or of a run that has stopped its last line
    runs: bool  # whether the run's process goes on


def write_page(run: RunRecord, path: pathlib.Path, runs: bool | None = None) -> None:
    """Writes a run's page, whole or not at all.

    Args:
      run: as it is now.
      path: the file; its folder is made.
      runs: whether the run goes on; None: as its folder's lock tells.

    Raises:
      WorkdirError: one of the run's files holds what no run writes.
    """
    runs = _is_locked(run.path) if runs is None else runs
    moment = datetime.datetime.now() if runs else _last_written(run)
    try:
        text = page(run, Moment(moment.astimezone(), runs))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WorkdirError(f"{run.path} has a file that no run writes: {error!r}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    # The run itself may be writing it, too. A page lost with the machine is written again.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_locked(folder: pathlib.Path) -> bool:
    """Whether a process works on the run, on this machine."""
    try:
        with open(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _last_written(run: RunRecord) -> datetime.datetime:
    names = ("config.json", "metrics.jsonl", "rounds.jsonl", "finals.jsonl", "result.json")
    files = [run.path / name for name in names]
    times = [file.stat().st_mtime for file in files if file.exists()]
    return datetime.datetime.fromtimestamp(max(times))


def page(run: RunRecord, moment: Moment) -> str:
    """The whole HTML."""
    title = f"{run.title} on {run.data}"
    again = _AGAIN if moment.runs and run.result is None else None
    style = (importlib.resources.files("furs_jax.report") / "page.css").read_text()
    head = [
        element("meta", charset="utf-8"),
        # Were there a way to put a script or an address into the page, it would do nothing.
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="refresh", content=again) if again else None,
        element("title", f"{title}: {'finished' if run.result is not None else 'not finished'}"),
        element("style", Markup(style)),
    ]
    body = [
        element("h1", title),
        element("p", _kind(run), class_="note"),
        _progress(run, moment),
        element("main", *_parts(run)),
    ]
    html = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def _parts(run: RunRecord) -> list[Markup | None]:
    """All sections; of narrow ones two stand side by side where there is room."""
    networks = join(outcome.comparison_table(run), outcome.vectors(run)) or None
    few = len(run.channels or ()) <= sections.MOST_ROWS
    counts_macs = run.allowance.unit == "MACs"
    return [
        _section("Was it worth it?" if run.searches else "What came of it", outcome.worth(run)),
        _section("Original and searched" if run.searches else "The network", networks),
        _section("Widths before and after", network_blocks(run) if run.searches else None),
        _section(f"{'FLOPs u' if counts_macs else 'U'}tilisation ratios", sections.furs(run)),
        _section("Widths over the rounds", sections.widths(run), narrow=few),
        _section("Budget", sections.budget(run), narrow=few),
        _section("Curves", sections.training_curves(run)),
        _section("Where the time went", sections.times(run), narrow=True),
        _section("The network to take away", _take_away(run), narrow=True),
        _section("The command", _command(run)),
        _section("What was run", _details(run)),
    ]


def _section(title: str, content: Markup | None, narrow: bool = False) -> Markup | None:
    if content is None:
        return None
    return element("section", element("h2", title), content, class_="half" if narrow else None)


def _kind(run: RunRecord) -> str:
    if not run.searches:
        return "Training of one network"
    allowed = run.allowance
    told = "" if allowed.budget is None else f" at {amount(allowed.budget)} {allowed.unit}"
    return f"Search by {method_title(run.method)}{told}"


def _progress(run: RunRecord, moment: Moment) -> Markup:
    """How far it is, and when it will be done."""
    at = moment.written.strftime("%d %b %Y %H:%M:%S %Z")
    if run.result is not None:
        return element("p", element("b", "Finished"), f"; last written at {at}.", class_="state")
    found = run.forecast
    share = f"{100 * found.share:.0f}"
    left = None if found.seconds is None else datetime.timedelta(seconds=found.seconds)
    if moment.runs:
        if left is None:
            due = " When it will be done is not known yet."
        else:
            due = (
                f" It will be done at about {clock(moment.written + left, moment.written)}, "
                f"{duration(found.seconds)} after that."
            )
        more = (
            f"{due} The page is written again after every round, and in between; where the time "
            "above is long ago, the run has been stopped, and the same command goes on with it."
        )
    else:
        due = "" if left is None else f" About {duration(found.seconds)} of work are left."
        more = f" The run has stopped; the same command goes on with it.{due}"
    return join(
        element("p", element("b", "Not finished"), f"; last written at {at}.", class_="state"),
        element("div", element("i", style=f"width: {share}%"), class_="progress"),
        element("p", f"{share} % of the trainings: {found.now}.", more),
    )


def _command(run: RunRecord) -> Markup:
    names = {"data": run.config["data"]["name"], "network": run.config["network"]}
    if given := [keyword for keyword, name in names.items() if name.startswith(PREFIX)]:
        keywords = "".join(f", {keyword}=..." for keyword in given)
        call = f"furs_jax.search(config, {str(run.path)!r}{keywords})"
        told = "It was begun in Python; the same call, with what it was given, goes on with it."
        return join(element("pre", call), element("p", told, class_="note"))
    told = "It makes the same run again; in the same folder it goes on with a run that stopped."
    first, *words = run_command(run.config, run.path)
    lines = [first, *([" \\", element("br"), f"    {word}"] for word in words)]
    return join(element("pre", *lines), element("p", told, class_="note"))


def _take_away(run: RunRecord) -> Markup | None:
    name = "searched" if run.searches else "trained"
    if run.result is None or name not in run.result:
        return None
    folder = Files(run.path).trained(name)
    if folder is None:
        vector = "The checkpoints are no longer there; the vector is in"
        return element("p", f"{vector} {run.path / 'result.json'}.")
    loading = f"found = furs_jax.load({str(run.path)!r})"
    lines = ["import furs_jax", loading, "found.predict(images)  # uint8, (N, H, W, C)"]
    code = [part for line in lines for part in (line, element("br"))]
    exporting = f"python -m furs_jax.export {shlex.quote(str(run.path))} --format=onnx"
    return join(
        element("p", "The first seed's, as it was trained: ", element("code", folder)),
        element("pre", code),
        element("p", "For other programs, verified: ", element("code", exporting)),
    )


def _details(run: RunRecord) -> Markup:
    begun: dict[str, Any] = run.begun
    data, network = begun.get("data") or {}, run.record or {}
    classes = [str(name) for name in data.get("class_names") or ()]
    rest = f", and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    shape = network.get("image_shape")
    images = run.images or {}
    rows = [
        ("folder", run.path),
        ("data", run.config["data"]["name"]),
        ("images", "x".join(map(str, shape)) if shape else None),
        ("number of images", ", ".join(f"{k} {n:,}" for k, n in images.items())),
        ("classes", network.get("num_classes")),
        ("their names", ", ".join(classes[:_MOST_CLASSES]) + rest),
        ("devices", ", ".join(map(str, begun.get("devices") or ()))),
        ("versions", ", ".join(f"{k} {v}" for k, v in (begun.get("versions") or {}).items())),
    ]
    default = defaults()
    options = [(o, v) for o, v in flat(run.config) if o not in default or v != default[o]]
    return join(
        sections.facts([(name, value) for name, value in rows if value]),
        element(
            "details",
            element("summary", "Options that are not the defaults"),
            sections.facts(options),
        ),
    )
