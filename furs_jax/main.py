"""The command line: python -m furs_jax.main --config=configs/x.py --workdir=DIR."""

import sys
from typing import Any

from furs_jax import cli


def main(arguments: list[str], config: Any, workdir: str | None) -> None:
    if arguments:
        sys.exit(f"furs_jax: {arguments[0]!r} is no option; options look like --config.seed=1")
    # Imported here, so that wrong options are reported without waiting for JAX.
    from furs_jax.modes import run

    run(config, workdir)


if __name__ == "__main__":
    cli.run(main)
