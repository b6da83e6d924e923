"""What the command lines share: the config, its overrides, --workdir, and errors as one line."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

import ml_collections
from absl import app, flags, logging

from furs_jax import paths
from furs_jax.config_files import call, find_config, load_module, one_line
from furs_jax.errors import ConfigError, FursError, StoppedError
from furs_jax.options.parse import check, is_switch, nearest, override
from furs_jax.options.parse import parse as parse_config
from furs_jax.options.schema import OPTIONS, Options

flags.DEFINE_string(
    "config",
    "configs/digits.py",
    "The config file, as FILE or FILE:ARGUMENT; --config.a.b=v changes one of its options.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. The same command goes on with the run that it holds."
)


class OneLineParser(argparse.ArgumentParser):
    """Of the commands that have no config: a mistake is one line, as everywhere."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"furs_jax: {message}; --help tells more")


def execute(command: Callable[[list[str], Options, str | None], None]) -> None:
    """Runs command(positional arguments, options, workdir) and exits; mistakes are one line."""
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
            given = load(flags.FLAGS.config, overrides)
            workdir = _WORKDIR.value
            if workdir is not None:
                workdir = paths.resolve(workdir, "--workdir=")
            command(arguments[1:], given, workdir)
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
        if match["no"] or (text is None and is_switch(option)):
            text = "False" if match["no"] else "True"
        elif text is None and option in OPTIONS:
            if not pending:
                raise ConfigError(f"{argument} needs a value, as in {argument}=VALUE")
            text = pending.pop(0)
        overrides.pop(option, None)
        overrides[option] = text or ""
    return rest, overrides


def load(config_file: str, overrides: dict[str, str]) -> Options:
    """The options of the config that a file gives, with overrides.

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
        check(config)
    except ConfigError as error:
        raise ConfigError(f"config file {file}: {error}") from error
    for option, text in overrides.items():
        override(config, option, text)
    return parse_config(config)


def _unknown_flag(name: str, values: flags.FlagValues) -> str:
    """Says that there is no such flag, and which flag or option may be meant."""
    known = [*values, *(f"config.{option}" for option in OPTIONS)]
    near = nearest(name, known)
    hint = f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "--help lists them"
    return f"there is no option --{name}; {hint}"
