"""The ways to measure FURs, on one trained network: time, memory, agreement with many draws."""

import dataclasses
import json
import pathlib
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from furs_jax import report
from furs_jax.costs.macs import Macs
from furs_jax.errors import ConfigError, MissingExtraError
from furs_jax.furs.measure import estimator_of, make_task_estimate, search_batches
from furs_jax.furs.ratios import FURs, drop_rates
from furs_jax.furs.steps import draw_noise, make_dropout_step, make_fisher_step
from furs_jax.gates import dropout_gates
from furs_jax.jobs.prepare import prepare
from furs_jax.machine.sealed import write_json
from furs_jax.options.schema import AUTO, Options
from furs_jax.run.tables import format_table
from furs_jax.training.step import Apply, data_parallel, make_eval_step, shard
from furs_jax.training.train import train
from furs_jax.training.trainer import Task, make_trainer
from furs_jax.widths.sites import choose_sites

REFERENCE_DRAWS = 50
REPEATS = 3  # of every timing, and estimates of each kind to compare with the reference

# way -> kind of estimate that it makes
WAYS = {
    "site by site": "independent draws",
    "vmapped": "independent draws",
    "fan-out": "independent draws",
    "fan-out, reduced variance": "reduced variance",
    "fisher": "fisher",
    "fisher, sampled labels": "fisher, sampled labels",
}
KINDS = {
    "independent draws": {"method": "dropout", "variance_reduction": False},
    "reduced variance": {"method": "dropout", "variance_reduction": True},
    "fisher": {"method": "fisher", "fisher_labels": "empirical"},
    "fisher, sampled labels": {"method": "fisher", "fisher_labels": "sampled"},
}


class Timing(NamedTuple):
    """Of one way to measure, over the same batches."""

    seconds: float  # median of REPEATS
    compile_seconds: float
    temporary_mib: float  # memory of the program beside its arguments and results


def bench(options: Options, workdir: str) -> None:
    """Times every way to measure FURs and compares their estimates with many draws.

    Prints a table, writes bench_furs_RATE.json and, where matplotlib is, a plot of dropout's FURs
    against Fisher's. The network is trained by config.train, once for the folder.

    Raises:
      ConfigError: options.furs.draws is no number, or more than one pass makes.
    """
    once, passes = estimator_of(options.furs).passes
    if options.furs.draws == AUTO or options.furs.method != "dropout" or passes > 1:
        raise ConfigError("this benchmark compares all methods at a number of draws, at most 5")
    options, task, *_ = prepare(options)
    folder = pathlib.Path(workdir).expanduser()
    variables = trained(task, options, folder)
    source = search_batches(task, options.furs)
    batches, images = list(source), len(source.split.labels)
    timings = _timings(task, options, variables, batches)
    reference, estimates = _estimates(task, options, variables, batches)
    quality = {
        kind: _quality(found, reference, options.reallocate.num_layers)
        for kind, found in estimates.items()
    }
    print(_table(timings, quality))
    print(
        f"{task.net.name}, {len(task.net.channels)} sites, {once} draws, rate "
        f"{options.furs.base_drop_rate}, {images:,} images of {task.dataset.name}, "
        f"{len(task.devices)} x {task.devices[0].device_kind}\n"
        f"reference: {REFERENCE_DRAWS} other draws of reduced variance. rel. s.e.: median standard "
        "error / reference; at equal time: in the time of the first way. Spearman, Kendall and "
        f"groups (share of the {options.reallocate.num_layers} best and worst sites found): mean "
        f"of {REPEATS} estimates"
    )
    name = f"bench_furs_{options.furs.base_drop_rate:g}"
    record = {
        "reference": reference.as_json(),
        "timings": {k: t._asdict() for k, t in timings.items()},
        "quality": quality,
        "estimates": {k: [furs.as_json() for furs in found] for k, found in estimates.items()},
    }
    write_json(folder / f"{name}.json", record)
    _plot(folder / name, task, estimates["fisher"][0], reference)


def _table(timings: dict[str, Timing], quality: dict[str, dict[str, float]]) -> str:
    first = timings["site by site"].seconds
    rows = []
    for name, t in timings.items():
        found = quality[WAYS[name]]
        at_equal_time = found["relative_stderr"] * np.sqrt(t.seconds / first)
        rows.append(
            (
                name,
                f"{t.seconds:.2f}",
                f"{t.seconds / first:.3f}",
                f"{t.compile_seconds:.1f}",
                f"{t.temporary_mib:.0f}",
                f"{found['relative_stderr']:.3f}",
                f"{at_equal_time:.3f}" if "fisher" not in name else "",
                *(f"{found[k]:.3f}" for k in ("spearman", "kendall", "groups")),
            )
        )
    header = ("way", "s", "ratio", "compile s", "MiB", "rel. s.e.", "at equal time")
    return format_table((*header, "Spearman", "Kendall", "groups"), rows)


def trained(task: Task, options: Options, folder: pathlib.Path) -> Any:
    """The original network's variables, trained by config.train and kept in the folder."""
    trainer = make_trainer(task, task.net.channels, options.train, task.dataset.train)
    folder.mkdir(parents=True, exist_ok=True)
    # Of this training alone: the benchmark's own options may change in one folder.
    training = {
        k: v
        for k, v in dataclasses.asdict(options).items()
        if k
        in (
            "seed",
            "network",
            "width_multiplier",
            "flops_budget",
            "cost",
            "padding",
            "dtype",
            "data",
            "train",
        )
    }
    name = f"bench_{zlib.crc32(json.dumps(training, sort_keys=True).encode()):08x}"
    state, record = train(trainer, options.seed, folder / "checkpoints" / name)
    print(f"trained: loss {record['loss']:.4f}, accuracy {100 * record['accuracy']:.2f}%")
    return jax.tree.map(np.asarray, state.variables)


def _timings(task: Task, options: Options, variables: Any, batches: list) -> dict[str, Timing]:
    furs, channels = options.furs, task.net.channels
    rates = drop_rates(channels, Macs(task.net).marginals(channels), furs.base_drop_rate)
    rates, key = jnp.asarray(rates, jnp.float32), jax.random.key(options.seed)
    apply = task.apply(channels)

    def dropout(fan_out: bool, reduced: bool) -> Callable:
        return make_dropout_step(apply, channels, furs.draws, furs.noise, fan_out, reduced)

    whole = [(variables, rates, key, jnp.int32(0))]
    programs = {
        "site by site": (
            _pass_step(apply, channels, furs.noise),
            list(_passes(variables, rates, key, furs.draws)),
        ),
        "vmapped": (dropout(False, False), whole),
        "fan-out": (dropout(True, False), whole),
        "fan-out, reduced variance": (dropout(True, True), whole),
        "fisher": (make_fisher_step(apply, channels, "empirical"), whole),
        "fisher, sampled labels": (make_fisher_step(apply, channels, "sampled"), whole),
    }
    batches = [shard(batch, len(task.devices)) for batch in batches]
    compiled = {
        name: _compile(data_parallel(step, task.devices), inputs[0], batches[0])
        for name, (step, inputs) in programs.items()
    }
    seconds = {name: [] for name in programs}
    for _ in range(REPEATS):  # in turn, so that a slow spell of the machine meets all
        for name, (_, inputs) in programs.items():
            seconds[name].append(_seconds(compiled[name][0], inputs, batches))
    return {name: Timing(float(np.median(seconds[name])), *compiled[name][1:]) for name in programs}


def _compile(step: Callable, inputs: tuple, batch: dict) -> tuple[Callable, float, float]:
    start = time.perf_counter()
    compiled = step.lower(inputs, batch).compile()
    seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(inputs, batch))
    return compiled, seconds, compiled.memory_analysis().temp_size_in_bytes / 2**20


def _seconds(compiled: Callable, inputs: list[tuple], batches: list[dict]) -> float:
    start = time.perf_counter()
    for batch in batches:
        for arguments in inputs:
            # One at a time: CPU devices can block each other where many programs are queued.
            jax.block_until_ready(compiled(arguments, batch))
    return time.perf_counter() - start


def _pass_step(apply: Apply, channels: tuple[int, ...], noise: str) -> Callable:
    """One pass with one site dropped by one draw, as the paper's code has it."""

    def pass_step(replicated, batch):
        variables, rates, key, draw = replicated
        sample = draw_noise(key, batch["index"], draw, channels)
        gates = dropout_gates(sample, rates, channels, noise)
        evaluate = make_eval_step(lambda variables, images, _: apply(variables, images, gates))
        return evaluate(variables, batch)

    return pass_step


def _passes(variables: Any, rates: jax.Array, key: jax.Array, draws: int) -> Iterable[tuple]:
    """Inputs of all passes: undropped, then each site and draw."""
    yield variables, jnp.zeros_like(rates), key, jnp.int32(0)
    for row in np.diag(np.asarray(rates)):
        for draw in range(draws):
            yield variables, jnp.asarray(row), key, jnp.int32(draw)


def _estimates(
    task: Task, options: Options, variables: Any, batches: list
) -> tuple[FURs, dict[str, list[FURs]]]:
    """The reference, and REPEATS estimates of each kind."""

    def estimate(kind: dict[str, Any], seeds: Iterable[int]) -> list[FURs]:
        measure = make_task_estimate(
            task, options.furs, task.net.channels, **{"metric": "loss", **kind}
        )
        return [measure(variables, batches, 0, seed) for seed in seeds]

    seed = options.seed
    many = {**KINDS["reduced variance"], "draws": REFERENCE_DRAWS}
    (reference,) = estimate(many, [seed + 1000])
    # Nothing is drawn for "fisher".
    repeats = {kind: 1 if kind == "fisher" else REPEATS for kind in KINDS}
    return reference, {
        kind: estimate(way, range(seed, seed + repeats[kind])) for kind, way in KINDS.items()
    }


def _quality(found: list[FURs], reference: FURs, layers: int) -> dict[str, float]:
    """How well estimates rank the sites as the reference does."""
    measures = [
        {
            "relative_stderr": np.median(estimate.furs_stderr / np.abs(reference.furs)),
            "spearman": stats.spearmanr(estimate.furs, reference.furs).statistic,
            "kendall": stats.kendalltau(estimate.furs, reference.furs).statistic,
            "groups": _overlap(estimate.furs, reference.furs, layers),
        }
        for estimate in found
    ]
    return {key: float(np.mean([m[key] for m in measures])) for key in measures[0]}


def _overlap(furs: np.ndarray, reference: np.ndarray, layers: int) -> float:
    """Share of the sites chosen by the reference that the estimate chooses alike."""
    pairs = zip(choose_sites(furs, layers), choose_sites(reference, layers), strict=True)
    return float(np.mean([len(set(a) & set(b)) / max(len(b), 1) for a, b in pairs]))


def _plot(path: pathlib.Path, task: Task, fisher: FURs, reference: FURs) -> None:
    try:
        draw = report.compare_furs
    except MissingExtraError as error:
        print(f"no plot: {error}")
        return
    draw(
        path,
        reference.furs,
        reference.furs_stderr,
        fisher.furs,
        fisher.furs_stderr,
        task.net.site_names,
        f"FUR by dropout, {REFERENCE_DRAWS} draws (loss per MAC)",
        "FUR by Fisher (loss per MAC)",
    )
