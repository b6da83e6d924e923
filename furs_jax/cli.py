"""What the command lines share: --config and --workdir, and errors as one line."""

import os
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from furs_jax.errors import FursError, StoppedError

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/digits.py", "The config file; --config.a.b=v changes one of its options."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. The same command goes on with the run that it holds."
)


def run(command: Callable[[list[str], Any, str | None], None]) -> None:
    """Runs command(positional arguments, config, workdir) and exits; mistakes are one line."""

    def main(arguments: list[str]) -> None:
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        if not os.path.isfile(path.partition(":")[0]):
            sys.exit(f"furs_jax: there is no config file {path}")
        logging.set_verbosity(logging.ERROR)  # libraries report through absl
        try:
            command(arguments[1:], _CONFIG.value, _WORKDIR.value)
        except FursError as error:
            sys.exit(f"furs_jax: {error}")
        except OSError as error:
            sys.exit(f"furs_jax: {error}; the same command goes on from the last checkpoint")
        except StoppedError as stopped:
            print(f"furs_jax: {stopped}", file=sys.stderr)
            sys.exit(stopped.status)
        except KeyboardInterrupt:
            sys.exit("furs_jax: interrupted; the same command goes on from the last checkpoint")

    app.run(main, flags_parser=parse)


def parse(arguments: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the flags, returns the rest; a mistake becomes one line, not a traceback."""
    try:
        return values(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).replace("\\n", " ").strip().splitlines()[-1]
        sys.exit(f"furs_jax: an option can't be used: {reason}")
