"""Networks read from the checkpoints of trainings: their channels and their variables."""

import contextlib
import json
import pathlib
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


def _channels(checkpoints: Checkpoints, net: Network, given: str) -> tuple[int, ...]:
    record = checkpoints.record()
    if record is None or "channels" not in record:
        raise ConfigError(f"{given} holds no checkpoint of a training")
    channels = tuple(record["channels"])
    if len(channels) != len(net.channels):
        raise ConfigError(f"{given} has {len(channels)} sites, {net.name} {len(net.channels)}")
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
