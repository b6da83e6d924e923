"""What the command lines share: the config, its overrides, --workdir, and errors as one line."""

import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging

from furs_jax import paths
from furs_jax.errors import ConfigError, FursError, StoppedError
from furs_jax.options import parse as options
from furs_jax.options.schema import OPTIONS

flags.DEFINE_string(
    "config",
    "configs/digits.py",
    "The config file, as FILE or FILE:ARGUMENT; --config.a.b=v changes one of its options.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. The same command goes on with the run that it holds."
)


def run(command: Callable[[list[str], Any, str | None], None]) -> None:
    """Runs command(positional arguments, config, workdir) and exits; mistakes are one line."""
    overrides: dict[str, str] = {}

    def parse_flags(arguments: list[str]) -> list[str]:
        rest, given = parse(arguments)
        overrides.update(given)
        return rest

    def main(arguments: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # libraries report through absl
        # What can't be kept is compiled again.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be in any encoding
        # Behind all others: modules of one's own are found, and none takes another's place.
        sys.path.extend(p for p in (str(paths.PROJECT), os.getcwd()) if p not in sys.path)
        try:
            config = load(flags.FLAGS.config, overrides)
            workdir = _WORKDIR.value
            if workdir is not None:
                workdir = paths.resolve(workdir, "--workdir=")
            command(arguments[1:], config, workdir)
        except FursError as error:
            sys.exit(f"furs_jax: {one_line(error)}")
        except OSError as error:
            sys.exit(f"furs_jax: {error}; the same command goes on from the last checkpoint")
        except StoppedError as stopped:
            print(f"furs_jax: {stopped}", file=sys.stderr)
            sys.exit(stopped.status)
        except KeyboardInterrupt:
            sys.exit("furs_jax: interrupted; the same command goes on from the last checkpoint")

    app.run(main, flags_parser=parse_flags)


def parse(
    arguments: Sequence[str], values: flags.FlagValues = flags.FLAGS
) -> tuple[list[str], dict[str, str]]:
    """Parses the flags; a mistake becomes one line, not a traceback.

    Returns:
      The arguments that are none, and the config's overrides: option -> text.
    """
    try:
        rest, overrides = split_overrides(values.read_flags_from_files(arguments, force_gnu=False))
        return values(rest), overrides
    except flags.UnrecognizedFlagError as error:
        sys.exit(f"furs_jax: {_unknown_flag(error.flagname, values)}")
    except (flags.Error, FursError) as error:
        sys.exit(f"furs_jax: an option can't be used: {one_line(error)}")


def split_overrides(
    arguments: Sequence[str], what: str = "config"
) -> tuple[list[str], dict[str, str]]:
    """Takes --config.OPTION=VALUE and --config.OPTION VALUE out of a command line.

    Args:
      arguments: the command line.
      what: the word in front of the options.

    Returns:
      The other arguments, and option -> text; of several of one option the last.

    Raises:
      ConfigError: a value is missing.
    """
    rest, overrides = [], {}
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if argument == "--":
            return [*rest, argument, *pending], overrides
        match = re.fullmatch(
            rf"--?(?P<no>no)?{what}\.(?P<option>[^=]*)(=(?P<text>.*))?", argument, re.S
        )
        if not match:
            rest.append(argument)
            continue
        option, text = match["option"], match["text"]
        if match["no"] or (text is None and options.is_switch(option)):
            text = "False" if match["no"] else "True"
        elif text is None and option in OPTIONS:
            if not pending:
                raise ConfigError(f"{argument} needs a value, as in {argument}=VALUE")
            text = pending.pop(0)
        overrides.pop(option, None)
        overrides[option] = text or ""
    return rest, overrides


def load(config_file: str, overrides: dict[str, str]) -> ml_collections.ConfigDict:
    """The config that a file gives, with overrides, checked, and with absolute paths.

    Raises:
      ConfigError: there is no such file, it fails, or an option can't have its value.
    """
    file, argument = find_config(config_file)
    module = load_module(file)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"config file {file} has no function get_config()")
    config = call(file, module.get_config, *([] if argument is None else [argument]))
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"get_config() of {file} returns no ConfigDict")
    try:
        options.check(config)
    except ConfigError as error:
        raise ConfigError(f"config file {file}: {error}") from error
    for option, text in overrides.items():
        options.override(config, option, text)
    return options.resolve_paths(config).lock()


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
    """Executes a config file; what it imports as configs.x is the project's."""
    if str(paths.PROJECT) not in sys.path:
        sys.path.append(str(paths.PROJECT))
    loader = importlib.machinery.SourceFileLoader("furs_config", str(file))
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


def _unknown_flag(name: str, values: flags.FlagValues) -> str:
    """Says that there is no such flag, and which flag or option may be meant."""
    known = [*values, *(f"config.{option}" for option in OPTIONS)]
    near = options.nearest(name, known)
    hint = f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "--help lists them"
    return f"there is no option --{name}; {hint}"
