"""The command line: python -m furs_jax.main --config=configs/x.py --workdir=DIR."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from furs_jax.errors import FursError

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/digits.py", "The config file; --config.a.b=v changes one of its options."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. The same command goes on with the run that it holds."
)


def main(_: list[str]) -> None:
    if not _WORKDIR.value:
        sys.exit("furs_jax: give the run's folder, as in --workdir=runs/digits")
    logging.set_verbosity(logging.WARNING)
    # Imported here, so that wrong options are reported without waiting for JAX.
    from furs_jax.search import search

    try:
        search(_CONFIG.value, _WORKDIR.value)
    except FursError as error:
        sys.exit(f"furs_jax: {error}")
    except OSError as error:
        sys.exit(f"furs_jax: {error}; the same command goes on from the last checkpoint")


if __name__ == "__main__":
    app.run(main)
