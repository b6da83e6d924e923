"""Files and folders that the user names: made absolute once, where options are read.

Relative ones are relative to the folder that the command is called from.
"""

import os
import pathlib
import re

from furs_jax.errors import ConfigError

_INSTALLED = pathlib.Path(__file__).resolve().with_name("project")  # see setup.py
# The folder that holds configs/: a clone of the project, or what an installation has of it.
PROJECT = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1]

_ADDRESS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://"  # of a bucket or a server
    r"|(?:gs|s3|gcs|az|abfss?|wasbs?|hdfs|https?|ftp|file|hf):/"  # as pathlib shortens it
)
_HOME = re.compile(r"(?:\$HOME|\$\{HOME\})(?=/|$)")
# Data sets that are folders or a file, as in folder:DIR.
_FOLDERS = ("idx", "folder", "npz")


def is_address(path: str) -> bool:
    """Whether it names something that is no file of this machine, as gs://bucket/runs does."""
    return _ADDRESS.match(path) is not None


def resolve(path: str | os.PathLike, before: str) -> str:
    """The absolute path, with ~, ~user and $HOME at its beginning replaced.

    Args:
      path: as the user gave it.
      before: how it was given, for messages: "--workdir=".

    Raises:
      ConfigError: it is no path, or the address of a bucket or a server.
    """
    given = os.fspath(path)
    if not given or "\0" in given:
        raise ConfigError(f"{before}{given!r} names no file or folder")
    _refuse_address(given, before)
    local = _HOME.sub("~", given, count=1) if given.startswith("$") else given
    expanded = os.path.expanduser(local)
    if expanded.startswith("~"):
        name = expanded.partition("/")[0]
        raise ConfigError(
            f"{before}{given}: there is no home folder of {name}; for a folder of that name here "
            f"give ./{given}"
        )
    full = os.path.join(os.getcwd(), expanded)
    short = os.path.normpath(full)
    # Behind a link, ".." is not the folder before it.
    return short if os.path.realpath(short) == os.path.realpath(full) else full


def _refuse_address(given: str, before: str) -> None:
    if is_address(given):
        raise ConfigError(
            f"{before}{given} is an address, not a path of this machine; mount the bucket (as by "
            "gcsfuse, mount-s3 or launch/sky.yaml) and give the folder where it is mounted"
        )


def resolve_data(name: str, option: str) -> str:
    """The name of a data set, with an absolute folder where it has one.

    Raises:
      ConfigError: see `resolve`.
    """
    _refuse_address(name, f"{option}=")
    kind, colon, argument = name.partition(":")
    _refuse_address(argument, f"{option}={kind}:")
    if kind not in _FOLDERS or not colon:
        return name
    return f"{kind}:{resolve(argument, f'{option}={kind}:')}"


def same(stored: str, given: str) -> bool:
    """Whether a path in an older run's config.json is `given`, which is absolute.

    Runs once kept relative paths, of the folder that they were called from, usually the project's.
    """
    kinds = [text.partition(":") for text in (stored, given)]
    if all(kind in _FOLDERS for kind, *_ in kinds):
        if kinds[0][0] != kinds[1][0]:
            return False
        stored, given = (argument for *_, argument in kinds)
    local = os.path.expanduser(stored)
    return os.path.realpath(given) in {
        os.path.realpath(os.path.join(folder, local)) for folder in (os.getcwd(), PROJECT)
    }
