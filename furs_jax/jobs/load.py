"""A run's or an export's network, to be used: `furs_jax.load`."""

import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn

from furs_jax import paths
from furs_jax.errors import ConfigError, DataError, FursError, WorkdirError
from furs_jax.jobs.compare import START
from furs_jax.jobs.exported import is_export, read_export
from furs_jax.jobs.predicting import ExportedProgram, Preprocessing, TrainedNetwork
from furs_jax.jobs.prepare import dataset_of
from furs_jax.jobs.vectors import initial_network
from furs_jax.machine.devices import resolve_dtype
from furs_jax.machine.sealed import damaged
from furs_jax.networks.by_name import given_module
from furs_jax.options.given import PREFIX
from furs_jax.options.parse import of_record
from furs_jax.options.schema import DataOptions, Options
from furs_jax.run.folder import Files
from furs_jax.run.lines import final_phase, pruned_phase
from furs_jax.training.checkpoint import latest_step
from furs_jax.training.distill import ORIGINAL
from furs_jax.training.loading import load_network, recorded_network


def load(
    path: str | os.PathLike, network: str | nn.Module | None = None, cost: str | None = None
) -> TrainedNetwork | ExportedProgram:
    """The network that a run has found and trained, another of its checkpoints, or an export.

        found = furs_jax.load("runs/digits")
        found.classes[found.predict(images)[0].argmax()]

    Args:
      path: a run's folder, for the found network as its first seed was trained (of mode "train",
        the given one), or a folder in a run's checkpoints/, such as
        runs/digits/checkpoints/final_original_0.
        Of a method that prunes while it trains the found network is the smaller one that is left
        (final_searched_0_pruned); final_searched_0 was trained, and computes the same.
        Or what `python -m furs_jax.export` wrote as safetensors, or as StableHLO, which predicts
        and holds no variables.
      network, cost: where the run's network or cost.resource are your own,
        "my_package.my_module:MyNet", or the network's module itself. Their code is imported because
        you name it; what the run's files name is not.

    Raises:
      ConfigError: there is no run, or it has code of your own that is not named here.
      WorkdirError: the run isn't finished, or the checkpoint was deleted.
      DamagedError: a file is not as it was written.
      DataError: a run of an earlier version has not recorded how its images are prepared, and its
        data set can't be read.
    """
    given = pathlib.Path(paths.resolve(path, "path="))
    if network is not None and not isinstance(network, str):
        network = given_module(network)
    if is_export(given):
        return read_export(given, network)
    files, phase = find_run(given)
    stored = files.read_config()
    folder = files.checkpoints / (phase or found_phase(files))
    if latest_step(folder) is None:
        raise WorkdirError(
            f"there is no checkpoint in {folder}: give another folder in {files.checkpoints}, or "
            f"train the vector of {files.result} again, by --config.mode=train "
            f"--config.channels_from={files.result} and another --workdir"
        )
    try:
        options = _with_own_code(of_record(stored["config"]), path, network=network, cost=cost)
        images = _images(stored, options.data, files)
    except (LookupError, AttributeError, TypeError) as error:
        raise damaged(files.config, f"a run's record has no such form ({error})") from error
    net = recorded_network(str(folder), initial_network(options, images)[0].net, "path")
    channels, variables = load_network(str(folder), net, "path", options.data.name)
    classes = images.class_names or tuple(map(str, range(images.num_classes)))
    preprocessing = Preprocessing(images.mean, images.std, images.image_shape, images.eval_crop)
    dtype = resolve_dtype(options.dtype)
    return TrainedNetwork(net, channels, variables, classes, preprocessing, dtype)


def find_run(folder: pathlib.Path) -> tuple[Files, str | None]:
    """The run of a folder, and which of its checkpoints the folder is.

    Raises:
      ConfigError: it is no run's.
    """
    for run, phase in ((folder, None), (folder.parent.parent, folder.name)):
        files = Files(run)
        if files.config.is_file() and (phase is None or folder.parent == files.checkpoints):
            return files, phase
    raise ConfigError(
        f"{folder} is no run's folder, which has a config.json, no folder in a run's checkpoints/, "
        "such as runs/digits/checkpoints/final_searched_0, and no export"
    )


def found_phase(files: Files, name: str | None = None, seed: int = 0) -> str:
    """The folder in a finished run's checkpoints/ that holds a network as it was tested.

    Args:
      name: of the network in result.json; None: the found one, of mode "train" the given one.
      seed: which of its trainings.

    Raises:
      ConfigError: the run has no such network or seed.
      WorkdirError: it isn't finished.
    """
    result = files.read_result() or {}
    names = [name for name in ("searched", "trained", START, ORIGINAL) if name in result]
    if not names:
        there = files.checkpoints.iterdir() if files.checkpoints.is_dir() else ()
        others = sorted(str(folder) for folder in there if latest_step(folder) is not None)
        raise WorkdirError(
            f"the run {files.path} is not finished: the command that began it goes on with it"
            f"{'; or give one of ' if others else ''}{', '.join(others)}"
        )
    name = name or names[0]
    if name not in names:
        raise ConfigError(f"{files.path} has no network {name!r}; it has {', '.join(names)}")
    if seed not in range(seeds := len(result[name]["seeds"])):
        raise ConfigError(
            f"{files.path} has trained {name} with {seeds} seed{'s' if seeds > 1 else ''}, counted "
            f"from 0; there is no seed {seed}"
        )
    pruned = pruned_phase(name, seed)
    there = latest_step(files.checkpoints / pruned) is not None
    return pruned if there else final_phase(name, seed)


def _with_own_code(options: Options, path: str | os.PathLike, **given: str | None) -> Options:
    """The options of a run with what the caller names of `network` and `cost`.

    Raises:
      ConfigError: the run names code that the caller doesn't.
    """
    stored = {"network": options.network, "cost": options.cost.resource}
    named = {own: name for own, name in given.items() if name is not None}
    for own in given.keys() - named.keys():
        name = stored[own]
        if ":" in name:
            told, again = f"{name}, whose code is imported if you ask for it", repr(name)
            if name.startswith(PREFIX):
                told, again = f"{name}, an object that was given to furs_jax.search", "MODULE"
                name = "my_module:MyNet"
            option = "cost.resource" if own == "cost" else own
            raise ConfigError(
                f"the {own} of {path} is {told}: load({os.fspath(path)!r}, {own}={again}), "
                f"or on a command line --config.{option}={name} (mode=predict), "
                f"--own_{own}={name} (export)"
            )
    stored |= named
    cost = dataclasses.replace(options.cost, resource=stored["cost"])
    return dataclasses.replace(options, network=stored["network"], cost=cost)


class _Images(NamedTuple):
    """What a run tells of its images; of `Dataset` what is needed here."""

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    eval_crop: float


def _images(stored: dict[str, Any], options: DataOptions, files: Files) -> _Images:
    network, data = stored.get("network"), stored.get("data")
    if network and data:
        return _Images(
            tuple(network["image_shape"]),
            network["num_classes"],
            *(tuple(data[field]) for field in ("mean", "std", "class_names")),
            data.get("eval_crop", _crop_of(options, network["image_shape"])),
        )
    try:  # an earlier version's run
        dataset = dataset_of(options)
    except FursError as error:
        raise DataError(
            f"{files.config} does not tell how images are prepared, and the data set that would "
            f"can't be read: {error}"
        ) from error
    known = (getattr(dataset, field) for field in _Images._fields[:-1])
    return _Images(*known, dataset.test.eval_crop)


def _crop_of(options: DataOptions, image_shape: list[int]) -> float:
    """Of a run that did not record it: images on disk are cut to squares of `image_size`."""
    on_disk = list(image_shape) == [options.image_size, options.image_size, 3]
    return options.eval_crop if on_disk else 1.0
