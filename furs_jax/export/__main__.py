"""The command line: python -m furs_jax.export RUN --format=onnx.

Takes a run's network away: writes it into a folder of its own, with all that is needed to use it
and a model card, and runs it there on images of the run's data. What computes something else than
Flax, or can't be run, is not kept.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from furs_jax import paths, plugins
from furs_jax.cli import OneLineParser
from furs_jax.errors import ConfigError, DataError, FursError
from furs_jax.run.text import printable

_IMAGES = 64  # to compare on


class _Origin(NamedTuple):
    """Where a network comes from: the path to load, its run's folder, and which one it is there."""

    path: pathlib.Path
    run: pathlib.Path | None
    name: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = OneLineParser("python -m furs_jax.export", description=__doc__.partition("\n\n")[2])
    add = parser.add_argument
    add("run", metavar="RUN", help="a run's --workdir, a folder in its checkpoints/, or an export")
    formats = ", ".join(plugins.names("export"))
    add("--format", required=True, help=f"{formats}, or your own as my_module:MyFormat")
    add("--network", metavar="NAME", help="searched (default), original, start or trained")
    add("--seed", type=int, default=0, metavar="N", help="which of its final trainings; from 0")
    add("--out", metavar="DIR", help="the folder to write; default: in RUN/export")
    add("--python", metavar="PATH", help="the Python that runs what is written; default: this one")
    add("--images", metavar="DIR", help="to compare on, or npz:FILE; default: of the run's data")
    add("--fold_batch_norms", action="store_true", help="onnx, pytorch: into the layers before")
    add("--own_network", metavar="NAME", help="the run's, if it is yours: my_module:MyNet")
    add("--own_cost", metavar="NAME", help="likewise its cost.resource")
    options = parser.parse_args(arguments)
    # What is small is not worth an accelerator, which may be another run's.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.extend(p for p in (str(paths.PROJECT), os.getcwd()) if p not in sys.path)
    try:
        _export(options)
    except (FursError, OSError) as error:
        sys.exit(printable(f"furs_jax: {error}"))


def _export(options: Any) -> None:
    from furs_jax.export._card import training_story
    from furs_jax.export._written import Wanted, check, write_export
    from furs_jax.jobs.load import load
    from furs_jax.jobs.predicting import TrainedNetwork
    from furs_jax.report.run_record import read_run

    origin = _origin(options)
    if options.out is None and origin.run is None:
        raise ConfigError(f"{options.run} is no run; give --out=DIR, the folder to write")
    default = f"{origin.run}/export/{origin.name}_{options.format.replace(':', '_')}"
    folder = pathlib.Path(paths.resolve(options.out or default, "--out="))
    python = options.python or sys.executable
    wanted = Wanted(options.format, folder, python, options.fold_batch_norms, options.own_network)
    check(wanted)
    found = load(origin.path, options.own_network, options.own_cost)
    if not isinstance(found, TrainedNetwork):
        raise ConfigError(f"{options.run} is a program, not a network; give the run")
    images, splits = _images(options, origin, found)
    about, told = {}, ""
    if origin.run:
        run = read_run(origin.run)
        about = {"trained": origin.name, **_data(run.config["data"], splits)}
        told = training_story(run, origin.name, splits)
    verified = write_export(wanted, found, images, about, told)
    for file in sorted(folder.iterdir()):
        print(f"{file.stat().st_size:>12,} {printable(str(file))}")
    print(verified)


def _origin(options: Any) -> _Origin:
    from furs_jax.jobs.exported import is_export
    from furs_jax.jobs.load import find_run, found_phase

    given = pathlib.Path(paths.resolve(options.run, "RUN "))
    chosen = options.network is not None or options.seed != 0
    if is_export(given):
        files, phase = None, given.stem
    else:
        files, phase = find_run(given)
    if chosen and phase:
        raise ConfigError(f"{options.run} is one network: leave out --network and --seed")
    if files is None:
        return _Origin(given, None, phase)
    phase = phase or found_phase(files, options.network, options.seed)
    return _Origin(files.checkpoints / phase, files.path, phase.removeprefix("final_"))


def _images(options: Any, origin: _Origin, found: Any) -> tuple[Any, dict[str, int] | None]:
    """Images to compare on, and how many each split of the run's data has.

    They are none of the test split, which is read once, at a run's end.
    """
    import numpy as np

    from furs_jax.data import load_images
    from furs_jax.jobs.predict import read_images
    from furs_jax.jobs.prepare import dataset_of
    from furs_jax.options.parse import of_record
    from furs_jax.run.folder import Files

    if (options.images or "").startswith("npz:"):
        return load_images(paths.resolve_data(options.images, "--images")).train.images[
            :_IMAGES
        ], None
    if options.images:
        return read_images(found, [options.images], _IMAGES), None
    if origin.run is None:
        raise ConfigError(f"{options.run} is no run; give --images=DIR, images to compare on")
    try:
        data = dataset_of(of_record(Files(origin.run).read_config()["config"]).data)
    except FursError as error:
        raise DataError(f"{error}; or give --images=DIR or npz:FILE, to compare on") from error
    split = data.search if len(data.search.labels) else data.train
    places = np.linspace(0, len(split.labels) - 1, _IMAGES).astype(int)
    counts = {name: len(getattr(data, name).labels) for name in ("train", "search", "test")}
    return split.examples(np.unique(places))["image"], counts


def _data(config: dict[str, Any], splits: dict[str, int] | None) -> dict[str, Any]:
    """What export.json tells of the data."""
    from furs_jax.export._card import short_name

    kept = ("search_fraction", "search_split", "seed")
    told = {key: config[key] for key in kept}
    return {"data": {"name": short_name(config["name"]), **told, "images": splits}}


if __name__ == "__main__":
    main()
