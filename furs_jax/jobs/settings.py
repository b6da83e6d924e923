"""What a sweep runs: every combination of values, checked, each in a folder of its own."""

import hashlib
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from furs_jax import cli, config_files
from furs_jax.errors import ConfigError, WorkdirBusyError
from furs_jax.options.parse import as_record, flat
from furs_jax.options.schema import path_kind
from furs_jax.paths import PROJECT
from furs_jax.run.folder import Workdir

# Letters of a value and of a folder's name; file systems take 143 at least, and ".log" is behind.
_LONGEST_VALUE, _LONGEST_NAME = 40, 120


class Setting(NamedTuple):
    """One run of a sweep."""

    name: str  # of its folder, as in "seed=1,width_multiplier=0.5"
    arguments: tuple[str, ...]  # of furs_jax.main
    workdir: pathlib.Path
    config: dict[str, Any]  # resolved, as config.json holds it

    @property
    def log(self) -> pathlib.Path:
        return self.workdir.with_name(f"{self.name}.log")

    def state(self) -> str:
        """ "new", "stopped", "running" or "finished".

        Raises:
          WorkdirError: the folder holds a run of another config.
        """
        if not (self.workdir / "config.json").exists():
            return "new"
        try:
            folder = Workdir(self.workdir, self.config)
        except WorkdirBusyError:
            return "running"
        folder.close()
        return "finished" if folder.result.exists() else "stopped"


def combinations(
    generated: Sequence[dict[str, Any]], grid: dict[str, Sequence[str]]
) -> Iterator[dict[str, str]]:
    """Every setting of the config's sweep() with every combination of the command line's values.

    Raises:
      ConfigError: nothing is swept, or an option by both.
    """
    if not generated and not grid:
        raise ConfigError(
            "nothing to sweep: give --sweep.OPTION=VALUE,VALUE or a config with a sweep() function"
        )
    for overrides in generated or [{}]:
        both = overrides.keys() & grid.keys()
        if both:
            raise ConfigError(f"{min(both)} is swept by the config and on the command line")
        for values in itertools.product(*grid.values()):
            texts = {key: str(value) for key, value in overrides.items()}
            yield texts | dict(zip(grid, values, strict=True))


def split_values(text: str) -> list[str]:
    """ "0.5,(1,2)" as ["0.5", "(1,2)"]: at the commas outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def config_sweep(path: str) -> list[dict[str, Any]]:
    """What the config file's sweep() yields; nothing where it has none.

    Raises:
      ConfigError: there is no such file, or it fails or yields something else.
    """
    file, _ = config_files.find_config(path)
    module = config_files.load_module(file)
    if not hasattr(module, "sweep"):
        return []
    generated = config_files.call(file, lambda: list(module.sweep()))
    if not all(isinstance(overrides, dict) for overrides in generated):
        raise ConfigError(f"sweep() of {file} must yield dictionaries, as in {{'seed': 1}}")
    return generated


def folder_name(swept: dict[str, str]) -> str:
    """The name of a setting's folder, as in "seed=1,width_multiplier=0.5"; no other has it.

    Values that are long or hold letters that don't belong in a name are shortened; what was left
    out is in the digest behind "~".
    """
    parts = (f"{option}={_short(text, _LONGEST_VALUE)}" for option, text in swept.items())
    name = ",".join(parts)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{_digest(repr(swept))}"


def _short(text: str, longest: int) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.,+-]", "_", text)
    # Commas are between settings, too.
    if plain == text and "," not in text and len(text) <= longest:
        return text
    return f"{plain[:longest]}~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def plan(
    config: str, workdir: str, overrides: dict[str, str], grid: dict[str, Sequence[str]]
) -> list[Setting]:
    """All settings of a sweep, checked.

    Args:
      config: the config file, as given.
      workdir: the sweep's folder.
      overrides: of every setting: option -> the command line's text.
      grid: option -> the values to be combined.

    Raises:
      ConfigError: two settings are the same, there are none, or an option can't have its value.
    """
    settings = {}
    file, argument = config_files.find_config(config)
    # Runs may be started from elsewhere, but one of the project is where it is, in any copy.
    if pathlib.Path.cwd() == PROJECT and file.is_relative_to(PROJECT):
        file = file.relative_to(PROJECT)
    config_file = str(file) if argument is None else f"{file}:{argument}"
    for swept in combinations(config_sweep(config), grid):
        name = folder_name(swept)
        given = overrides | swept
        resolved = cli.load(config, given)
        as_json = as_record(resolved)
        for other in settings.values():
            if other.config == as_json:
                same = name if name == other.name else f"{other.name} and {name}"
                raise ConfigError(f"two settings of the sweep are the same: {same}")
        values = dict(flat(as_json))
        texts = {key: values[key] if path_kind(key) else text for key, text in given.items()}
        folder = pathlib.Path(workdir) / name
        arguments = (
            f"--config={config_file}",
            *(f"--config.{key}={text}" for key, text in texts.items()),
            f"--workdir={folder}",
        )
        settings[name] = Setting(name, arguments, folder, as_json)
    return list(settings.values())
