"""Benchmarks: python -m furs_jax.bench furs --config=configs/x.py --workdir=DIR.

furs: the time, memory and quality of the ways to measure FURs, on one trained network.
"""

import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from furs_jax import cli
from furs_jax.data import evaluation_batches
from furs_jax.furs import FURs, drop_rates, estimate_furs
from furs_jax.gates import dropout_gates
from furs_jax.prepare import prepare
from furs_jax.reallocate import choose_sites
from furs_jax.report.tables import format_table
from furs_jax.resources import marginal_macs
from furs_jax.search import evenly_spread
from furs_jax.step import (
    Apply,
    data_parallel,
    draw_noise,
    make_dropout_step,
    make_eval_step,
    make_fisher_step,
    shard,
)
from furs_jax.train import Recipe, Task, make_trainer, train
from furs_jax.workdir import write_json

REFERENCE_DRAWS = 50
REPEATS = 3


class Timing(NamedTuple):
    """Of one way to measure, over the same batches."""

    seconds: float  # median of REPEATS
    compile_seconds: float
    temporary_mib: float  # memory of the program beside its arguments and results


def bench_furs(config: Any, workdir: str) -> None:
    """Times every way to measure FURs and compares their estimates with many draws."""
    task, _ = prepare(config)
    folder = pathlib.Path(workdir).expanduser()
    variables = _trained(task, config, folder)
    split = evenly_spread(task.dataset.search, config.furs.images)
    batches = list(evaluation_batches(split, config.furs.batch_size))
    timings = _timings(task, config, variables, batches)
    quality = _quality(task, config, variables, batches)
    first = timings["site by site"]
    rows = [
        (
            name,
            f"{t.seconds:.2f}",
            f"{t.seconds / first.seconds:.3f}",
            f"{t.compile_seconds:.1f}",
            f"{t.temporary_mib:.0f}",
            *_quality_columns(quality["fisher" if name == "fisher" else "dropout"]),
        )
        for name, t in timings.items()
    ]
    header = ("way", "s", "ratio", "compile s", "MiB", "rel. s.e.", "Spearman", "Kendall", "groups")
    print(format_table(header, rows))
    print(
        f"{task.net.name}, {len(task.net.channels)} sites, {config.furs.draws} draws, rate "
        f"{config.furs.base_drop_rate}, {len(split.labels):,} images of {task.dataset.name}, "
        f"{len(task.devices)} x {task.devices[0].device_kind}; ranks against "
        f"{REFERENCE_DRAWS} other draws; groups: share of the {config.reallocate.num_layers} best "
        "and worst found; rel. s.e.: median of standard error / reference"
    )
    record = {"timings": {k: t._asdict() for k, t in timings.items()}, "quality": quality}
    write_json(folder / "bench_furs.json", record)


def _quality_columns(quality: dict[str, float]) -> list[str]:
    return [f"{quality[k]:.3f}" for k in ("relative_stderr", "spearman", "kendall", "groups")]


def _trained(task: Task, config: Any, folder: pathlib.Path) -> Any:
    """The original network's variables, trained by config.train and kept in the folder."""
    recipe = Recipe(**config.train.to_dict())
    trainer = make_trainer(task, task.net.channels, recipe, task.dataset.train)
    folder.mkdir(parents=True, exist_ok=True)
    variables, record = train(trainer, config.seed, folder / "checkpoints" / "bench")
    print(f"trained: loss {record['loss']:.4f}, accuracy {100 * record['accuracy']:.2f}%")
    return jax.tree.map(np.asarray, variables)


def _timings(task: Task, config: Any, variables: Any, batches: list) -> dict[str, Timing]:
    options, channels = config.furs, task.net.channels
    module = task.net.module(channels, dtype=task.dtype)
    rates = drop_rates(channels, marginal_macs(task.net.macs, channels), options.base_drop_rate)
    rates, key = jnp.asarray(rates, jnp.float32), jax.random.key(config.seed)

    def apply(variables, images, gates):
        return module.apply(variables, task.preprocess(images), gates)

    def dropout(fan_out: bool) -> Callable:
        return make_dropout_step(apply, channels, options.draws, options.noise, fan_out)

    whole = (variables, rates, key)
    passes = [whole, *_passes(variables, rates, key, options.draws)]
    programs = {
        "site by site": (_pass_step(apply, channels, options.noise), passes[1:]),
        "vmapped": (dropout(False), [whole]),
        "fan-out": (dropout(True), [whole]),
        "fisher": (make_fisher_step(apply, channels, options.fisher_labels), [whole]),
    }
    batches = [shard(batch, len(task.devices)) for batch in batches]
    return {
        name: _time(data_parallel(step, task.devices), inputs, batches)
        for name, (step, inputs) in programs.items()
    }


def _pass_step(apply: Apply, channels: tuple[int, ...], noise: str) -> Callable:
    """One pass with one site dropped by one draw, as the paper's code has it."""

    def pass_step(replicated, batch):
        variables, rates, key, draw = replicated
        sample = draw_noise(key, batch["index"], draw, channels, noise)
        gates = dropout_gates(sample, rates, channels, noise)
        evaluate = make_eval_step(lambda variables, images, _: apply(variables, images, gates))
        return evaluate(variables, batch)

    return pass_step


def _passes(variables: Any, rates: jax.Array, key: jax.Array, draws: int) -> list:
    """Inputs of all passes: undropped, then each site and draw."""
    rows = [jnp.zeros_like(rates), *np.asarray(jnp.diag(rates))]
    return [
        (variables, jnp.asarray(row), key, jnp.int32(draw))
        for site, row in enumerate(rows)
        for draw in range(1 if site == 0 else draws)
    ]


def _time(step: Callable, inputs: list, batches: list) -> Timing:
    start = time.perf_counter()
    compiled = step.lower(inputs[0], batches[0]).compile()
    compile_seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(inputs[0], batches[0]))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for batch in batches:
            jax.block_until_ready([compiled(arguments, batch) for arguments in inputs])
        seconds.append(time.perf_counter() - start)
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return Timing(float(np.median(seconds)), compile_seconds, memory)


def _quality(task: Task, config: Any, variables: Any, batches: list) -> dict[str, dict]:
    """How well each method's estimate ranks the sites, against many other draws."""

    def estimate(method: str, draws: int, seed: int) -> FURs:
        return estimate_furs(
            task.net,
            task.net.channels,
            variables,
            batches,
            method=method,
            draws=draws,
            base_drop_rate=config.furs.base_drop_rate,
            noise=config.furs.noise,
            fisher_labels=config.furs.fisher_labels,
            seed=seed,
            preprocess=task.preprocess,
            dtype=task.dtype,
            devices=task.devices,
        )

    # In parts of five draws: one program for all, and little memory.
    parts = [estimate("dropout", 5, 1000 + i).furs for i in range(REFERENCE_DRAWS // 5)]
    reference = np.mean(parts, axis=0)
    found = {
        "dropout": estimate("dropout", config.furs.draws, config.seed),
        "fisher": estimate("fisher", 1, config.seed),
    }
    layers = config.reallocate.num_layers
    return {
        name: {
            "furs": furs.furs.tolist(),
            "furs_stderr": furs.furs_stderr.tolist(),
            "reference": reference.tolist(),
            "relative_stderr": float(np.median(furs.furs_stderr / np.abs(reference))),
            "spearman": float(stats.spearmanr(furs.furs, reference).statistic),
            "kendall": float(stats.kendalltau(furs.furs, reference).statistic),
            "groups": _overlap(furs.furs, reference, layers),
        }
        for name, furs in found.items()
    }


def _overlap(furs: np.ndarray, reference: np.ndarray, layers: int) -> float:
    """Share of the sites chosen by the reference that the estimate chooses alike."""
    pairs = zip(choose_sites(furs, layers), choose_sites(reference, layers), strict=True)
    shares = [len(set(a) & set(b)) / len(b) for a, b in pairs]
    return float(np.mean(shares))


def main(arguments: list[str], config: Any, workdir: str) -> None:
    if arguments != ["furs"]:
        sys.exit("furs_jax: name a benchmark: furs")
    bench_furs(config, workdir)


if __name__ == "__main__":
    cli.run(main)
