"""From a ConfigDict to typed options: what a config file and the command line gave, checked."""

import dataclasses
import difflib
import functools
import json
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_type_hints

import ml_collections

from furs_jax.config_files import default_config
from furs_jax.errors import ConfigError
from furs_jax.options.kinds import Switch
from furs_jax.options.schema import OPTIONS, Options, check_option, path_kind, resolved

Record = dict[str, Any]


def parse(config: ml_collections.ConfigDict) -> Options:
    """The options of a config, with absolute paths.

    Raises:
      ConfigError: see `check` and `resolve_paths`.
    """
    check(config)
    return _typed(Options, resolve_paths(config).to_dict())


def of_record(record: Record) -> Options:
    """The options of a run's config.json; one that an earlier version lacks has its default.

    Raises:
      ConfigError: one has a value that it can't have.
    """
    config = default_config()
    for option, value in flat(record):
        if option in OPTIONS:
            _set(config, option, tuple(value) if isinstance(value, list) else value)
    return parse(config)


def _typed(of: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(of)
    return of(
        **{
            name: _typed(hints[name], value)
            if dataclasses.is_dataclass(hints[name])
            else _plain(value)
            for name, value in values.items()
        }
    )


def _plain(value: Any) -> Any:
    """Python's own numbers in place of NumPy's, which JSON can't hold."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return (
        float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value
    )


def as_record(options: Options) -> Record:
    """As JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


@functools.cache
def defaults() -> Record:
    """Every option's default, by full name, as JSON holds it: what configs/default.py says."""
    return dict(flat(as_record(parse(default_config()))))


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a config or its JSON, as ("train.epochs", 20)."""
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check(config: ml_collections.ConfigDict) -> None:
    """Checks every option by itself.

    Raises:
      ConfigError: an option has a value that it can't have, is unknown, or is missing.
    """
    given = dict(flat(config))
    for option in given:
        if option not in OPTIONS:
            raise ConfigError(unknown(option))
    missing = [option for option in OPTIONS if option not in given]
    if missing:
        raise ConfigError(
            f"the config has no {missing[0]}; begin with what configs/default.py's get_config() "
            "returns"
        )
    for option, value in given.items():
        check_option(option, value)


def override(config: ml_collections.ConfigDict, option: str, text: str) -> None:
    """Sets an option to what the command line's text stands for.

    Raises:
      ConfigError: there is no such option, or it can't have that value.
    """
    if option not in OPTIONS:
        raise ConfigError(unknown(option))
    try:
        value = OPTIONS[option].parse(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    check_option(option, value)
    _set(config, option, value)


def resolve_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy with every path absolute.

    Raises:
      ConfigError: one is no path of this machine.
    """
    copy = config.copy_and_resolve_references()
    for option, value in flat(config):
        if path_kind(option):
            _set(copy, option, resolved(option, value))
    return copy


def is_switch(option: str) -> bool:
    return isinstance(OPTIONS.get(option), Switch)


def _set(config: ml_collections.ConfigDict, option: str, value: Any) -> None:
    *groups, name = option.split(".")
    for group in groups:
        config = config[group]
    with config.unlocked(), config.ignore_type():
        config[name] = value


def unknown(option: str, among: Iterable[str] = OPTIONS) -> str:
    """Says that there is no such option, and which may be meant."""
    group = [name for name in among if name.startswith(f"{option}.")]
    if group:
        names = ", ".join(f"--config.{name}" for name in group[:3])
        return f"--config.{option} is a group of options; give one of them, such as {names}"
    near = [f"--config.{name}" for name in nearest(option, among)]
    hint = f"did you mean {' or '.join(near)}?" if near else "configs/default.py explains them all"
    return f"there is no option --config.{option}; {hint}"


def nearest(option: str, among: Iterable[str] = OPTIONS, most: int = 3) -> list[str]:
    """Options of a like name, best first: of the same last part, wherever, or spelled alike."""
    known = list(among)
    last = {name: name.rpartition(".")[2] for name in known}
    wanted = option.lower().replace("-", "_")
    end = wanted.rpartition(".")[2]

    def likeness(name: str) -> tuple[float, float]:
        ends = difflib.SequenceMatcher(None, end, last[name]).ratio()
        whole_name = difflib.SequenceMatcher(None, wanted, name).ratio()
        return max(ends, whole_name), whole_name

    ranked = sorted(known, key=likeness, reverse=True)
    return [name for name in ranked[:most] if likeness(name)[0] >= 0.75]
