"""The command line of the benchmarks."""

import importlib
import sys

from furs_jax import cli
from furs_jax.machine import huge_pages
from furs_jax.machine.stop import Stop
from furs_jax.options.schema import Options

# name -> its module, which has a function `bench(options, workdir)`, and what it measures.
BENCHMARKS = {
    "at_once": ("at_once", "images/s of several trainings at once, and one after the other"),
    "furs": (
        "estimators",
        "time, memory and quality of the ways to measure FURs, on one trained network",
    ),
    "headroom": (
        "headroom",
        "what more MACs would be worth beside the noise: whether a gain could be seen",
    ),
    "input": ("input", "images/s of the input pipeline, without a network"),
    "latency": (
        "layer_times",
        "ms of a network's layers at a grid of widths: the table of cost.resource=latency",
    ),
    "ranking": (
        "ranking",
        "how well shorter trainings rank networks of the same MACs: how short config.train may be",
    ),
    "train": (
        "throughput",
        "images/s of the training step, of its input and of both, and what it waits for",
    ),
    "truth": (
        "truth",
        "utilisation ratios by retraining with sites wider and narrower, and their predictors",
    ),
}


def main(arguments: list[str], options: Options, workdir: str | None) -> None:
    if len(arguments) != 1 or arguments[0] not in BENCHMARKS:
        known = "\n".join(f"  {name}: {what}" for name, (_, what) in BENCHMARKS.items())
        sys.exit(f"furs_jax: name one benchmark:\n{known}")
    if workdir is None:
        sys.exit("furs_jax: give the benchmark's folder, as in --workdir=runs/bench")
    with Stop().install():
        # Imported here, so that wrong options are reported without waiting for JAX.
        module, _ = BENCHMARKS[arguments[0]]
        importlib.import_module(f"furs_jax.bench.{module}").bench(options, workdir)


if __name__ == "__main__":
    huge_pages.begin_again()
    cli.execute(main)
