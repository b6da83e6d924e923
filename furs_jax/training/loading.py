"""Networks in checkpoints: their channels, their modules' fields and their variables."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.machine import hosts
from furs_jax.networks.network import Network
from furs_jax.objectives import Variables
from furs_jax.options.schema import FRESH, LOAD
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.step import TrainState


def load_channels(path: str, net: Network, option: str) -> tuple[int, ...]:
    """The channel vector of a training's checkpoint; as of `load_network`."""
    with _opened(path, option) as checkpoints:
        return _channels(checkpoints, net, f"{option}={path}")


def load_network(
    path: str,
    net: Network,
    option: str,
    data: str = "the data",
    head: str = LOAD,
    way_on: str = "",
) -> tuple[tuple[int, ...], Variables]:
    """The channel vector and the variables (numpy) of a training's checkpoint.

    Args:
      path: a folder in a run's checkpoints/, such as runs/x/checkpoints/final_original_0.
      net: the network of which it is a vector.
      option: that named the path, for messages.
      data: the name of the data set, for messages.
      head: "fresh" leaves out the arrays whose shape follows the number of classes.
      way_on: what to do where that is another one, for messages.

    Raises:
      ConfigError: there is no checkpoint, or it is another network's.
      DamagedError: it is damaged.
    """
    given = f"{option}={path}"
    with _opened(path, option) as checkpoints:
        channels = _channels(checkpoints, net, given)
        shapes = net_shapes(net, channels)
        if head == FRESH:
            axes = _class_axes(net, channels)
            if not axes:
                raise ConfigError(
                    f"init_head=fresh: no layer of {net.name} follows its field num_classes"
                )
            shapes = without(shapes, axes)
        try:
            variables = checkpoints.restore_variables(shapes)
        except WorkdirError as error:
            classes = _classes(checkpoints.arrays(), _class_axes(net, channels))
            known = net.template.num_classes if classes else None
            if classes == known:
                raise
            raise ConfigError(
                f"{given} was trained for {classes} classes, {data} has {known}{way_on}"
            ) from error
    return channels, jax.tree.map(np.asarray, variables)


def module_record(net: Network) -> dict[str, Any]:
    """What a checkpoint's record holds of a network: which of its family it is.

    That is the vector, and the module's other fields that are whole numbers or tuples of them, such
    as the stem's width.
    """
    fields = {
        name: value
        for name, value in _fields(net).items()
        if isinstance(value, int | tuple) and _is_whole(value)
    }
    return {"channels": list(net.channels), "fields": fields}


def recorded_network(path: str, net: Network, option: str) -> Network:
    """The network of a checkpoint, `net` itself where nothing but the vector differs.

    Nothing of the record is executed.

    Raises:
      ConfigError: there is no checkpoint, or it is of another family.
    """
    with _opened(path, option) as checkpoints:
        record = _record(checkpoints, f"{option}={path}")
    try:
        return with_fields(net, tuple(record["channels"]), record.get("fields", {}))
    except Exception as error:  # whatever a module makes of wrong values
        raise ConfigError(f"{option}={path} is of another network than {net.name}") from error


def with_fields(net: Network, channels: Sequence[int], given: dict[str, Any]) -> Network:
    """The network with fields of `module_record`, `net` itself where it has them all.

    Raises:
      Exception: whatever the module makes of wrong values, or of the channels.
    """
    own, fields = _fields(net), {name: _as_tuples(value) for name, value in given.items()}
    if not (fields.keys() <= own.keys() and all(map(_is_whole, fields.values()))):
        raise ValueError("its module has other fields")
    other = {name: value for name, value in fields.items() if value != own[name]}
    found = net.of(channels, **other) if other else net
    net_shapes(found, channels)
    return found


def save_network(folder: pathlib.Path, net: Network, state: TrainState) -> None:
    """Saves a network in place of what is there, to be read as any training's.

    Args:
      state: of which the step and the variables are kept.
    """
    if hosts.is_first():
        shutil.rmtree(folder, ignore_errors=True)
    with Checkpoints(folder) as checkpoints:
        record = {"step": int(state.step), **module_record(net)}
        checkpoints.save(int(state.step), state.kept.replace(opt_state=()), record)


def _fields(net: Network) -> dict[str, Any]:
    """Of the module, but for what is said otherwise: the vector, classes, and how it computes."""
    left_out = {"channels", "num_classes", "dtype", "axis_name", "parent", "name"}
    names = {field.name for field in dataclasses.fields(net.template)} - left_out
    return {name: getattr(net.template, name) for name in sorted(names)}


def _is_whole(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_whole, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


@contextlib.contextmanager
def _opened(path: str, option: str) -> Iterator[Checkpoints]:
    folder = pathlib.Path(path).expanduser()
    if not hosts.from_first(folder.is_dir):
        raise ConfigError(
            f"{option}={path}: there is no such folder; give one in a run's checkpoints/, such as "
            "runs/x/checkpoints/final_original_0"
        )
    with Checkpoints(folder, read_only=True) as checkpoints:
        yield checkpoints


def _record(checkpoints: Checkpoints, given: str) -> dict[str, Any]:
    record = checkpoints.record()
    if record is None or "channels" not in record:
        raise ConfigError(f"{given} holds no checkpoint of a training")
    return record


def _channels(checkpoints: Checkpoints, net: Network, given: str) -> tuple[int, ...]:
    channels = tuple(_record(checkpoints, given)["channels"])
    if len(channels) != len(net.channels):
        way_on = (
            "; where its stages have other numbers of blocks, give depths" if net.depths else ""
        )
        raise ConfigError(
            f"{given} has {len(channels)} sites, {net.name} {len(net.channels)}{way_on}"
        )
    return channels


def net_shapes(net: Network, channels: Sequence[int], **fields: Any) -> Variables:
    """The shapes and dtypes of a network's variables."""
    image = jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)
    return jax.eval_shape(net.module(channels, **fields).init, jax.random.key(0), image)


# Path of an array among the variables -> its axis that is as long as there are classes.
ClassAxes = dict[tuple[str, ...], int]


def _class_axes(net: Network, channels: Sequence[int]) -> ClassAxes:
    """The head: the arrays whose shape follows the number of classes, found by one class more."""
    classes = getattr(net.template, "num_classes", None)
    if not classes:
        return {}
    more = flatten_dict(net_shapes(net, channels, num_classes=classes + 1))
    return {
        path: axis
        for path, x in flatten_dict(net_shapes(net, channels)).items()
        for axis, length in enumerate(more[path].shape)
        if length != x.shape[axis]
    }


def without(variables: Variables, paths: Collection[tuple[str, ...]]) -> Variables:
    """The variables but for the arrays of these paths."""
    return unflatten_dict({k: v for k, v in flatten_dict(variables).items() if k not in paths})


def _classes(arrays: Sequence[str], axes: ClassAxes) -> int | None:
    """The number of classes that a checkpoint of these arrays was trained for."""
    for (collection, *keys), axis in axes.items():
        name = f".{collection}{''.join(f'[{key!r}]' for key in keys)} "
        for line in arrays:
            if line.startswith(name):
                return json.loads(line[line.rindex("[") :])[axis]
    return None
