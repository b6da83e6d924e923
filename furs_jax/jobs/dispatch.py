"""What a config's `mode` asks for: one job, which is a file beside this one."""

import importlib
from collections.abc import Sequence
from typing import Any

from furs_jax.errors import ConfigError
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import OPTIONS, PREDICT, Options

# mode -> module, function
_JOBS = {
    "search": ("search", "perform"),
    "train": ("train_given", "perform"),
    "evaluate": ("look", "evaluate"),
    "furs": ("look", "measure"),
    "describe": ("describe", "perform"),
    PREDICT: ("predict", "perform"),
}


def do(
    options: Options, workdir: str | None, stop: Stop | None = None, files: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Does what `mode` says.

    Args:
      options: of the run.
      workdir: the run's folder, needed by the modes that train; the others write what they found
        into it where it is given.
      stop: as of `search`.
      files: what mode "predict" looks at.

    Raises:
      FursError: see `search`.
    """
    if options.mode not in _JOBS:
        raise ConfigError(f"mode={options.mode!r} must be {OPTIONS['mode']}")
    if workdir is None and options.mode in ("search", "train"):
        raise ConfigError("give the run's folder, as in --workdir=runs/digits")
    module, function = _JOBS[options.mode]
    job = getattr(importlib.import_module(f"furs_jax.jobs.{module}"), function)
    return job(options, workdir, stop, *([files] if options.mode == PREDICT else []))
