"""What `furs_jax.load` reads of an export: its record, and the network of two of the formats."""

import pathlib
import zlib
from typing import Any

import jax
from jax import export as jax_export

from furs_jax.errors import ConfigError, FursError
from furs_jax.jobs.predicting import ExportedProgram, Predictor, Preprocessing, TrainedNetwork
from furs_jax.machine.sealed import damaged, read_json
from furs_jax.networks import get_network
from furs_jax.networks.network import Network
from furs_jax.objectives import Variables
from furs_jax.options.given import PREFIX
from furs_jax.training.loading import module_record, net_shapes, with_fields
from furs_jax.training.packed import unpack

Record = dict[str, Any]

RECORD = "export.json"  # beside every export: what was exported, and how it was verified
MODEL = "model"  # name of the exported network's file, but for its suffix
ARRAYS, PROGRAM = ".safetensors", ".stablehlo"


def digest_of_file(file: pathlib.Path) -> str:
    """Eight hexadecimal digits, which export.json holds of each file beside it."""
    return f"{zlib.crc32(file.read_bytes()):08x}"


def describe(found: TrainedNetwork) -> Record:
    """What JSON holds of a network beside its variables; see `rebuild`."""
    fields = module_record(found.net)["fields"]
    return {
        "network": found.net.name,
        "original": list(found.net.channels),
        "channels": list(found.channels),
        "padding": getattr(found.net.template, "padding", None),
        "fields": fields,
        "classes": list(found.classes),
        **{key: _plain(value) for key, value in found.preprocessing._asdict().items()},
    }


def rebuild(record: Record, variables: Variables, own: str | None = None) -> TrainedNetwork:
    """The network of a record of `describe`, computed in float32.

    Args:
      own: the name of the user's own network, whose code is imported, or of `given_module`.

    Raises:
      ConfigError: the record names the user's own network, and `own` doesn't.
      Exception: whatever a record that is none leads to.
    """
    name = own or record["network"]
    if ":" in name and own is None:
        raise ConfigError(
            f"its network is {name}, whose code is imported if you ask for it: load(PATH, "
            f"network={'MODULE' if name.startswith(PREFIX) else repr(name)})"
        )
    preprocessing, channels = _preprocessing(record), tuple(record["channels"])
    classes, padding = tuple(map(str, record["classes"])), record["padding"] or "max"
    net = get_network(name, 1.0, len(classes), padding, preprocessing.image_shape)
    net = _of(net, tuple(record["original"]), record["fields"])
    shapes = net_shapes(net, channels)
    if jax.tree.map(lambda x: (x.shape, x.dtype), shapes) != jax.tree.map(
        lambda x: (x.shape, x.dtype), variables
    ):
        raise ValueError(f"its arrays are not those of {name} with the channels {list(channels)}")
    return TrainedNetwork(net, channels, variables, classes, preprocessing, "float32")


def is_export(path: pathlib.Path) -> bool:
    """Whether it is an export's folder, or the file in it that is loaded."""
    return (path / RECORD).is_file() or (path.is_file() and path.suffix in (ARRAYS, PROGRAM))


def read_export(path: pathlib.Path, own: str | None = None) -> Predictor:
    """The network of an export's folder, or of the file in it.

    Raises:
      ConfigError: the format is none that is read, or see `rebuild`.
      DamagedError: a file is not as it was written.
    """
    folder, files = path.parent, [path]
    if path.is_dir():
        folder, files = path, [path / f"{MODEL}{suffix}" for suffix in (ARRAYS, PROGRAM)]
        _check_format(path, read_json(path / RECORD)["format"])
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise damaged(folder / RECORD, f"{files[0].name} is no longer beside it")
    try:
        if file.suffix == ARRAYS:
            record, variables = unpack(file)
            _check_format(file, record.get("format", "safetensors"))
            return rebuild(record, variables, own)
        record = read_json(folder / RECORD)
        if record["digests"][file.name] != digest_of_file(file):
            raise ValueError("it has changed since it was written")
        program = jax_export.deserialize(bytearray(file.read_bytes()))
        return ExportedProgram(program, tuple(record["classes"]), _preprocessing(record))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file} has no {RECORD} beside it, which holds its classes; keep both in one folder"
        ) from error
    except FursError:
        raise
    except Exception as error:  # whatever parsers and modules make of damage
        raise damaged(file, f"it is no network that was exported ({error})") from error


def _check_format(path: pathlib.Path, name: str) -> None:
    if name not in ("safetensors", "stablehlo"):
        raise ConfigError(
            f"{path} is an export for other programs, and its README.md tells how they use it; "
            "furs_jax loads runs, and exports as safetensors or stablehlo"
        )


def _of(net: Network, channels: tuple[int, ...], fields: Record) -> Network:
    found = with_fields(net, channels, fields)
    return found if found.channels == channels else found.of(channels)


def _preprocessing(record: Record) -> Preprocessing:
    mean, std, shape = (tuple(record[key]) for key in ("mean", "std", "image_shape"))
    return Preprocessing(mean, std, shape, float(record["eval_crop"]))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
