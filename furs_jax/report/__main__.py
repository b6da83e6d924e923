"""The command line: python -m furs_jax.report RUN... [--output=DIR] [--tensorboard=DIR].

Writes, for one run into RUN/report, for several into DIR: of one run index.html, a page that needs
no other file; report.md and table.csv with Table 4's columns, and as PNG and SVG the network before
and after, FURs and channels of every round, and accuracy against MACs. Where several methods
searched, methods.csv and a figure compare them. An unfinished run gives what it has.

With --tensorboard the journals are written as event files of TensorBoard, too (extra
`tensorboard`), of several runs into a folder for each.
"""

import importlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

from furs_jax.cli import OneLineParser
from furs_jax.errors import ConfigError, FursError, MissingExtraError
from furs_jax.paths import resolve
from furs_jax.report.columns import MOVED
from furs_jax.report.method_table import MethodTable, are_methods, compare_methods
from furs_jax.report.page import PAGE, write_page
from furs_jax.report.run_record import NETWORK_ADJUSTMENT, RunRecord, read_run
from furs_jax.report.sizes import size_changes
from furs_jax.report.table4 import Table, comparison
from furs_jax.report.tensorboard import write_events
from furs_jax.run.text import markdown, printable

_LONGEST = 100  # letters of a run in a file's name


def write_report(runs: Sequence[RunRecord], output: pathlib.Path, each: bool = True) -> list[str]:
    """Writes tables, then figures, and a page with both.

    Args:
      runs: at least one.
      output: the folder to write to.
      each: draw each run's network, FURs and channels too, beside the accuracy of all.

    Returns:
      A line for each figure that can't be drawn yet, or of this network.

    Raises:
      MissingExtraError: no matplotlib; the tables are written.
    """
    output.mkdir(parents=True, exist_ok=True)
    tables: list[Table | MethodTable] = [comparison(runs)]
    (output / "table.csv").write_text(tables[0].csv())
    if are_methods(runs):
        tables.insert(0, compare_methods(runs))
        (output / "methods.csv").write_text(tables[0].csv())
    _write_page(output, runs, tables, [])
    draw = importlib.import_module("furs_jax.report")
    save = draw.save  # raises where there is no matplotlib
    written, missing = [], []
    for name, figure in _figures(runs, draw, each):
        try:
            save(figure(), output / name)
            written.append(name)
        except FursError as error:
            missing.append(f"{name} is not drawn: {error}")
    _write_page(output, runs, tables, written)
    return missing


def _figures(runs: Sequence[RunRecord], draw, each: bool) -> Iterator[tuple[str, Callable]]:
    """The figures' file names and functions."""
    if are_methods(runs):
        yield "methods", lambda: draw.draw_methods(runs)
    else:
        others = ("params", *(run.allowance.unit for run in runs)) if _trained(runs) else ()
        for unit in dict.fromkeys(("MACs", *others)):
            suffix = "" if unit == "MACs" else "_" + re.sub(r"[^A-Za-z0-9]", "_", unit)
            yield f"accuracy{suffix}", lambda unit=unit: draw.draw_accuracy(runs, unit=unit)
    for run, name in zip(runs, _unique_names(runs), strict=True) if each else ():
        prefix = f"{name}_" if len(runs) > 1 else ""
        yield f"{prefix}network", lambda run=run: _network_figure(run, draw)
        if run.searches and (run.rounds or run.method == NETWORK_ADJUSTMENT):
            yield f"{prefix}furs", lambda run=run: draw.draw_furs(run)
            yield f"{prefix}channels", lambda run=run: draw.draw_channels(run)


def _trained(runs: Sequence[RunRecord]) -> bool:
    """Whether any has a final accuracy."""
    return any(run.finals for run in runs)


def _network_figure(run: RunRecord, draw):
    if run.before is None or run.channels is None:
        raise ConfigError("no round has ended yet")
    if run.moved_blocks:
        raise ConfigError(MOVED)
    done = f" ({run.progress})" if run.progress else ""
    size = ", ".join(size_changes(run.network, run.before, run.channels))
    title = f"{run.title} on {run.data}{done}: {size}"
    return draw.draw_network(run.network, run.before, run.channels, title)


def _unique_names(runs: Sequence[RunRecord]) -> list[str]:
    """The folders' names, with as many parents as tell all apart; as names of files."""
    for depth in range(1, max(len(run.path.parts) for run in runs)):
        names = ["_".join(run.path.parts[-depth:]) for run in runs]
        if len(set(names)) == len(names):
            break
    safe = [re.sub(r"[^\w.,=+-]", "_", name).lstrip(".-")[-_LONGEST:] for name in names]
    if len(set(safe)) < len(safe):
        safe = [f"{place + 1}_{name}" for place, name in enumerate(safe)]
    return safe


def _write_page(
    output: pathlib.Path,
    runs: Sequence[RunRecord],
    tables: Sequence[Table | MethodTable],
    figures: Sequence[str],
) -> None:
    titles = list(dict.fromkeys(f"{run.title} on {run.data}" for run in runs))
    title = ", ".join(titles[:3]) + (f" and {len(titles) - 3} more" if len(titles) > 3 else "")
    images = [f"![{markdown(name)}]({quote(name)}.png)" for name in figures]
    parts = [f"# {markdown(title)}", *(table.markdown().rstrip() for table in tables), *images]
    text = "\n\n".join(parts) + "\n"
    (output / "report.md").write_text(text)


def _write_events(runs: Sequence[RunRecord], folder: pathlib.Path, figures: pathlib.Path) -> None:
    """One run's event files into the folder, with its figures; of several into folders in it."""
    if len(runs) == 1:
        write_events(runs[0], folder, sorted(figures.glob("*.png")))
        return
    for run, name in zip(runs, _unique_names(runs), strict=True):
        write_events(run, folder / name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = OneLineParser("python -m furs_jax.report", description=__doc__.partition("\n\n")[2])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's --workdir")
    parser.add_argument("--output", metavar="DIR", help="the folder to write to")
    parser.add_argument("--tensorboard", metavar="DIR", help="the folder of event files to write")
    options = parser.parse_args(arguments)
    # Nothing is computed: don't take an accelerator from a run.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        folders = dict.fromkeys(pathlib.Path(resolve(p, "RUN ")).resolve() for p in options.runs)
        runs = [read_run(folder) for folder in folders]
        if len(runs) > 1 and not options.output:
            parser.error("give --output=DIR for the report of several runs")
        output = runs[0].path / "report"
        if options.output:
            output = pathlib.Path(resolve(options.output, "--output="))
        if len(runs) == 1:
            write_page(runs[0], output / PAGE.name)
        try:
            missing = write_report(runs, output)
        finally:
            if (output / "table.csv").exists():
                print((output / "report.md").read_text().partition("\n![")[0].rstrip())
            if options.tensorboard:
                events = pathlib.Path(resolve(options.tensorboard, "--tensorboard="))
                _write_events(runs, events, output)
    except MissingExtraError as error:
        sys.exit(printable(f"furs_jax: {error}. The tables are written to {output}"))
    except (FursError, OSError) as error:
        sys.exit(printable(f"furs_jax: {error}"))
    for line in missing:
        print(printable(f"furs_jax: note: {line}"), file=sys.stderr)
    print(f"\n{printable(str(output))}")
    if len(runs) == 1:
        print(printable(str(output / PAGE.name)))


if __name__ == "__main__":
    main()
