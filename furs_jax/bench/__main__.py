"""The command line of the benchmarks; NAME is a module beside this one."""

import importlib
import sys
from typing import Any

from furs_jax import cli
from furs_jax.machine.stop import Stop

# What each measures; the module of that name has a function `bench(config, workdir)`.
BENCHMARKS = {
    "furs": "time, memory and quality of the ways to measure FURs, on one trained network",
    "headroom": "what more MACs would be worth beside the noise: whether a gain could be seen",
    "input": "images/s of the input pipeline, without a network",
    "train": "images/s of the training step, of its input and of both, and what it waits for",
    "truth": "utilisation ratios by retraining with sites wider and narrower, and their predictors",
}


def main(arguments: list[str], config: Any, workdir: str | None) -> None:
    if len(arguments) != 1 or arguments[0] not in BENCHMARKS:
        known = "\n".join(f"  {name}: {what}" for name, what in BENCHMARKS.items())
        sys.exit(f"furs_jax: name one benchmark:\n{known}")
    if workdir is None:
        sys.exit("furs_jax: give the benchmark's folder, as in --workdir=runs/bench")
    with Stop().install():
        # Imported here, so that wrong options are reported without waiting for JAX.
        importlib.import_module(f"furs_jax.bench.{arguments[0]}").bench(config, workdir)


if __name__ == "__main__":
    cli.run(main)
