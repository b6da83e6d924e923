"""What an option names: a module of one of this package's rooms, or a class of the user's own.

A method, a cost or an objective is one file in its room, and nothing else knows it.
"""

import functools
import importlib
import pathlib
from typing import Any

from furs_jax.errors import ConfigError


@functools.cache
def names(room: str) -> tuple[str, ...]:
    """The modules of a room; none is imported."""
    folder = pathlib.Path(__file__).with_name(room)
    return tuple(sorted(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_")))


def load(room: str, name: str, option: str | None = None) -> Any:
    """The class PLUGIN of a room's module, or that of "my_package.my_module:MyClass".

    `option` named it, by default the room's own, for messages.

    Raises:
      ConfigError: there is none.
    """
    if ":" in name:
        return imported(name, option or room.removesuffix("s"))
    if name not in names(room):
        raise ConfigError(f"unknown {name!r}; known {room} are {', '.join(names(room))}")
    return importlib.import_module(f"furs_jax.{room}.{name}").PLUGIN


def imported(name: str, option: str | None = None) -> Any:
    """What "my_package.my_module:MyClass" names; `option` named it, for messages.

    Raises:
      ConfigError: it can't be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a module of one's own raises
        usual = isinstance(error, ImportError | AttributeError)
        told = f"{error}" if usual else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{option}={name!r} can't be imported: {told}; give my_package.my_module:MyClass of "
            "what is installed or lies in the folder that you call from"
        ) from error


def behind(found: Any, seam: type, name: str) -> Any:
    """The class that was found, if it is one behind the seam.

    Raises:
      ConfigError: it is something else; `name` says what the user gave.
    """
    if not (isinstance(found, type) and issubclass(found, seam)):
        raise ConfigError(
            f"{name} is no subclass of {seam.__module__}.{seam.__name__}: derive it from that "
            "(docs/ARCHITECTURE.md, 'The seams')"
        )
    return found
