"""A trained network in one safetensors file: its arrays, and what is needed to use them."""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from furs_jax.errors import MissingExtraError
from furs_jax.machine.sealed import damaged
from furs_jax.objectives import Variables

Record = dict[str, Any]

_DIGEST = "arrays_crc32"


def pack(path: pathlib.Path, variables: Variables, record: Mapping[str, Any]) -> None:
    """Writes the file.

    Args:
      path: the file.
      variables: {"params", "batch_stats"}; an array is called as "params/stem/conv/kernel".
      record: anything that JSON holds, kept as the file's metadata, each field as JSON.

    Raises:
      MissingExtraError: safetensors is not installed. Of `unpack`, too.
    """
    flat = flatten_dict(variables, sep="/")
    arrays = {name: np.array(x, order="C") for name, x in flat.items()}
    record = {**record, _DIGEST: _digest(arrays)}
    metadata = {key: json.dumps(value) for key, value in record.items()}
    _numpy().save_file(arrays, path, metadata)


def unpack(path: pathlib.Path) -> tuple[Record, Variables]:
    """The record and the arrays (numpy) of a file of `pack`.

    Raises:
      DamagedError: it is no such file.
    """
    load_file = _numpy().load_file
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        record = {key: json.loads(value) for key, value in metadata.items()}
        arrays = load_file(path)
        if record.pop(_DIGEST, None) != _digest(arrays):
            raise ValueError("its arrays have changed since it was written")
        return record, unflatten_dict(arrays, sep="/")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"it is no network that was exported ({error})") from error


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of the arrays' bytes, in order of their names."""
    digest = 0
    for name in sorted(arrays):
        digest = zlib.crc32(arrays[name].tobytes(), digest)
    return f"{digest:08x}"


def _numpy() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("exports as safetensors", error.name, "export") from error
    return safetensors.numpy
