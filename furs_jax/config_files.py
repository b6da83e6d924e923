"""Config files: finding them, executing them, and the default one."""

import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import ml_collections

from furs_jax import paths
from furs_jax.errors import ConfigError

_CONFIGS = paths.PROJECT / "configs"
_PACKAGE = "furs_config"  # that a config file is in while it is executed


def default_config() -> ml_collections.ConfigDict:
    """Every option with its default: what get_config() of configs/default.py returns."""
    return load_module(_CONFIGS / "default.py").get_config()


def find_config(given: str) -> tuple[pathlib.Path, str | None]:
    """The file of "FILE" or "FILE:ARGUMENT", and the argument.

    It is looked for where the command is called, then in the project's folder.

    Raises:
      ConfigError: there is none.
    """
    # A path may have colons of its own.
    ends = [len(given), *(m.start() for m in re.finditer(":", given))]
    for folder in (os.getcwd(), paths.PROJECT):
        for end in ends:
            file = pathlib.Path(folder, os.path.expanduser(given[:end]))
            if file.is_file():
                return file, None if end == len(given) else given[end + 1 :]
    paths.resolve(given, "--config=")  # says so where it is an address
    where = dict.fromkeys((os.getcwd(), str(paths.PROJECT)))
    raise ConfigError(f"there is no config file {given} in {' or '.join(where)}")


def load_module(file: pathlib.Path) -> Any:
    """Executes a config file, which may import others.

    What it imports from `.x` is x.py beside it, or else the project's; what it imports from
    `configs.x` is the project's, unless a package of that name comes first on the path.
    """
    if str(paths.PROJECT) not in sys.path:
        sys.path.append(str(paths.PROJECT))
    for name in [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]:
        del sys.modules[name]  # which another folder's files have imported
    package = sys.modules[_PACKAGE] = types.ModuleType(_PACKAGE)
    package.__path__ = [str(file.parent), str(_CONFIGS)]
    loader = importlib.machinery.SourceFileLoader(f"{_PACKAGE}.file", str(file))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    call(file, loader.exec_module, module)
    return module


def call(file: pathlib.Path, function: Callable, *arguments: Any) -> Any:
    """Runs a config file's own code; an error of it becomes a ConfigError that names the file."""
    try:
        return function(*arguments)
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ConfigError(f"config file {file} can't be used: {kind}{one_line(error)}") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")).strip()
