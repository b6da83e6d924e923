"""The command that makes a run again, from its options alone."""

import pathlib
import shlex
from typing import Any

from furs_jax.options.parse import defaults, flat
from furs_jax.options.schema import OPTIONS

Record = dict[str, Any]


def run_command(config: Record, folder: pathlib.Path) -> list[str]:
    """The words of a shell's command: configs/default.py with every option that differs.

    It need not be the one that was typed, but gives the same options, so that it goes on with a
    run that has not ended.

    Args:
      config: the resolved options, as in config.json.
      folder: the run's.
    """
    changed = [
        f"--config.{option}={_text(value)}"
        for option, value in flat(config)
        if option in OPTIONS and value != defaults()[option]
    ]
    words = ["--config=configs/default.py", *changed, f"--workdir={folder}"]
    return ["python -m furs_jax.main", *map(shlex.quote, words)]


def _text(value: Any) -> str:
    """As the command line has a value."""
    if isinstance(value, list):
        return f"({''.join(f'{item},' for item in value)})"
    return str(value)
