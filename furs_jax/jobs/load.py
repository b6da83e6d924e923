"""A run's network, to be used: `furs_jax.load`."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax import paths
from furs_jax.data.augment import normalise
from furs_jax.errors import ConfigError, DataError, FursError, WorkdirError
from furs_jax.jobs.prepare import dataset_of
from furs_jax.jobs.vectors import initial_network
from furs_jax.machine.devices import resolve_dtype
from furs_jax.machine.sealed import damaged
from furs_jax.networks.network import Network
from furs_jax.objectives import Variables
from furs_jax.options.parse import of_record
from furs_jax.options.schema import DataOptions, Options
from furs_jax.run.folder import Files
from furs_jax.run.lines import final_phase, pruned_phase
from furs_jax.training.checkpoint import latest_step
from furs_jax.training.loading import load_network, recorded_network

_AT_ONCE = 64  # images that are computed together; bounds the memory


class Preprocessing(NamedTuple):
    """What becomes of a uint8 image before the network: (image / 255 - mean) / std."""

    mean: tuple[float, ...]  # of each image channel, of 1
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]  # (H, W, C)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network as a run has trained it.

    Attributes:
      net: the searchable network.
      channels: the vector that was trained.
      variables: {"params", "batch_stats"}, numpy arrays, of net.module(channels).
      classes: their names, in order of the outputs; their numbers, "0" and on, where the data set
        has no names.
      preprocessing: of the images, as in the training.
      dtype: of the computation.
    """

    net: Network
    channels: tuple[int, ...]
    variables: Variables
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    dtype: str

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The probability of each class, float32, shape (N, K): the softmax of the logits.

        Args:
          images: uint8, shape (N, H, W, C), with H, W and C as in `preprocessing`. They are what
            the run tested on: of a set whose images differ in size, crops of `data.image_size`.

        Raises:
          ConfigError: they have another type or shape.
        """
        images, shape = np.asarray(images), self.preprocessing.image_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise ConfigError(
                f"predict takes uint8 images of the shape (N, {', '.join(map(str, shape))}), not "
                f"{images.dtype} of {images.shape}"
            )
        found = [np.zeros((0, len(self.classes)), np.float32)]
        for begin in range(0, len(images), _AT_ONCE):
            part = images[begin : begin + _AT_ONCE]
            # Up to powers of two, so that few sizes are compiled.
            missing = (1 << (len(part) - 1).bit_length()) - len(part)
            filled = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
            found.append(np.asarray(self._probabilities(filled))[: len(part)])
        return np.concatenate(found)

    @functools.cached_property
    def _probabilities(self) -> Callable[[np.ndarray], jax.Array]:
        module = self.net.module(self.channels, dtype=self.dtype)
        mean, std, _ = self.preprocessing

        @jax.jit
        def probabilities(variables: Variables, images: jax.Array) -> jax.Array:
            logits = module.apply(variables, normalise(images, mean, std))
            return jax.nn.softmax(logits.astype(jnp.float32))

        return functools.partial(probabilities, jax.device_put(self.variables))


def load(
    path: str | os.PathLike, network: str | None = None, cost: str | None = None
) -> TrainedNetwork:
    """The network that a run has found and trained, or another one of its checkpoints.

        found = furs_jax.load("runs/digits")
        found.classes[found.predict(images)[0].argmax()]

    Args:
      path: a run's folder, for the found network as its first seed was trained (of mode "train",
        the given one), or a folder in a run's checkpoints/, such as
        runs/digits/checkpoints/final_original_0.
        Of a method that prunes while it trains the found network is the smaller one that is left
        (final_searched_0_pruned); final_searched_0 was trained, and computes the same.
      network, cost: where the run's are your own, "my_package.my_module:MyNet". Their code is
        imported because you name it; what the run's files name is not.

    Raises:
      ConfigError: there is no run, or it has code of your own that is not named here.
      WorkdirError: the run isn't finished, or the checkpoint was deleted.
      DamagedError: a file is not as it was written.
      DataError: a run of an earlier version has not recorded how its images are prepared, and its
        data set can't be read.
    """
    files, phase = _find(pathlib.Path(paths.resolve(path, "path=")))
    stored = files.read_config()
    folder = files.checkpoints / (phase or _found_phase(files))
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
    preprocessing = Preprocessing(images.mean, images.std, images.image_shape)
    dtype = resolve_dtype(options.dtype)
    return TrainedNetwork(net, channels, variables, classes, preprocessing, dtype)


def _find(folder: pathlib.Path) -> tuple[Files, str | None]:
    """The run of a folder, and which of its checkpoints the folder is.

    Raises:
      ConfigError: it is no run's.
    """
    for run, phase in ((folder, None), (folder.parent.parent, folder.name)):
        files = Files(run)
        if files.config.is_file() and (phase is None or folder.parent == files.checkpoints):
            return files, phase
    raise ConfigError(
        f"{folder} is no run's folder, which has a config.json, and no folder in a run's "
        "checkpoints/, such as runs/digits/checkpoints/final_searched_0"
    )


def _found_phase(files: Files) -> str:
    result = files.read_result() or {}
    names = [name for name in ("searched", "trained") if name in result]
    if not names:
        there = files.checkpoints.iterdir() if files.checkpoints.is_dir() else ()
        others = sorted(str(folder) for folder in there if latest_step(folder) is not None)
        raise WorkdirError(
            f"the run {files.path} is not finished: the command that began it goes on with it"
            f"{'; or give one of ' if others else ''}{', '.join(others)}"
        )
    pruned = pruned_phase(names[0], 0)
    there = latest_step(files.checkpoints / pruned) is not None
    return pruned if there else final_phase(names[0], 0)


def _with_own_code(options: Options, path: str | os.PathLike, **given: str | None) -> Options:
    """The options of a run with what the caller names, option -> name.

    Raises:
      ConfigError: the run names code that the caller doesn't.
    """
    named = {option: name for option, name in given.items() if name is not None}
    for option in given.keys() - named.keys():
        if ":" in (name := getattr(options, option)):
            raise ConfigError(
                f"the {option} of {path} is {name}, whose code is imported if you ask "
                f"for it: load({os.fspath(path)!r}, {option}={name!r})"
            )
    return dataclasses.replace(options, **named)


class _Images(NamedTuple):
    """What a run tells of its images; of `Dataset` what is needed here."""

    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


def _images(stored: dict[str, Any], options: DataOptions, files: Files) -> _Images:
    network, data = stored.get("network"), stored.get("data")
    if network and data:
        return _Images(
            tuple(network["image_shape"]),
            network["num_classes"],
            *(tuple(data[field]) for field in ("mean", "std", "class_names")),
        )
    try:  # an earlier version's run
        dataset = dataset_of(options)
    except FursError as error:
        raise DataError(
            f"{files.config} does not tell how images are prepared, and the data set that would "
            f"can't be read: {error}"
        ) from error
    return _Images(*(getattr(dataset, field) for field in _Images._fields))
