"""How well the times of layers tell those of whole networks, of which some are timed."""

import math
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from scipy import stats

from furs_jax.costs.latency import LatencyTable
from furs_jax.jobs.forward_time import forward_times
from furs_jax.run.tables import format_table
from furs_jax.training.trainer import Task
from furs_jax.widths.budget import fit_to_budget

Channels = tuple[int, ...]

_FITTED, _JUDGED, _ALIKE = 10, 20, 20  # networks; the last ones have the original's MACs
_NARROWEST, _SPREAD = 0.25, 1.5  # of them: see `random_vectors`


class Errors(NamedTuple):
    """Of predictions of networks that nothing was fitted to."""

    mean: float  # relative
    largest: float
    spearman: float


def judged(table: LatencyTable, task: Task, seed: int) -> tuple[LatencyTable, dict[str, Any], str]:
    """The table with constant, factor and mean error; what was measured; and it in words.

    Constant and factor are fitted to `_FITTED` networks, and judged by `_JUDGED` others of all
    sizes, and by `_ALIKE` with about the MACs of the original, beside a fit by MACs.
    """
    net, size = task.net, table.measured["batch_size"]
    vectors = list(random_vectors(np.random.default_rng(seed), table, _FITTED + _JUDGED + _ALIKE))
    alike = len(vectors) - _ALIKE
    vectors[alike:] = [
        fit_to_budget(net, v, net.macs(net.channels), 1, table.units, max_channels=table.widest)
        for v in vectors[alike:]
    ]
    nets = {str(number): net.of(vector) for number, vector in enumerate(vectors)}
    seconds = forward_times(task, nets, size)["seconds"].values()
    measured = np.array([1000 * size * statistics.median(own) for own in seconds])
    layers = np.array([table.ms(vector) for vector in vectors])
    macs = np.array([net.macs(vector) for vector in vectors], float)
    constant, factor = fitted(layers[:_FITTED], measured[:_FITTED])
    by_table = constant + factor * layers
    of_macs = fitted(macs[:_FITTED], measured[:_FITTED])
    by_macs = of_macs[0] + of_macs[1] * macs
    sizes, equal = slice(_FITTED, alike), slice(alike, None)
    errors = errors_of(by_table[sizes], measured[sizes])
    rows = [
        ("this table, all sizes", *_shown(errors)),
        ("this table, equal MACs", *_shown(errors_of(by_table[equal], measured[equal]))),
        ("MACs, all sizes", *_shown(errors_of(by_macs[sizes], measured[sizes]))),
        ("MACs, equal MACs", *_shown(errors_of(by_macs[equal], measured[equal]))[:2], "none"),
    ]
    table = table._replace(constant=constant, factor=factor, mean_error=errors.mean)
    told = {
        "vectors": [list(vector) for vector in vectors],
        "measured": measured.tolist(),
        "predicted": by_table.tolist(),
        "fitted": _FITTED,
        "of_equal_macs": _ALIKE,
    }
    heads = ("predicted by, networks", "mean error", "largest", "Spearman")
    text = (
        f"{format_table(heads, rows)}\n{_JUDGED} networks of {measured[:alike].min():.3g} to "
        f"{measured[:alike].max():.3g} ms, {_ALIKE} of {measured[alike:].min():.3g} to "
        f"{measured[alike:].max():.3g} ms; constant and factor are fitted to {_FITTED} others. "
        f"{net.name}, {size} images, {task.dtype}, {task.devices[0].device_kind}"
    )
    return table, told, text


def random_vectors(rng: np.random.Generator, table: LatencyTable, count: int) -> Iterator[Channels]:
    """Networks from `_NARROWEST` of the widest to all of it, each site up to `_SPREAD` off that."""
    units, widest = table.units, table.widest
    for _ in range(count):
        share = math.exp(rng.uniform(math.log(_NARROWEST), 0))
        sites = share * _SPREAD ** rng.uniform(-1, 1, len(units))
        steps = [round(s * most / unit) for s, unit, most in zip(sites, units, widest, strict=True)]
        yield tuple(
            min(max(step, 1) * unit, most)
            for step, unit, most in zip(steps, units, widest, strict=True)
        )


def fitted(x: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Constant and factor, none below zero, by least squares of relative errors."""
    own = np.stack([np.ones_like(x), x], axis=1)
    scale = own.mean(axis=0)
    found, _ = scipy.optimize.nnls(own / scale / measured[:, None], np.ones(len(x)))
    constant, factor = found / scale
    return float(constant), float(factor)


def errors_of(predicted: np.ndarray, measured: np.ndarray) -> Errors:
    """How far predictions are off, and whether they rank networks right."""
    errors = np.abs(predicted / measured - 1)
    rank = stats.spearmanr(predicted, measured).statistic
    return Errors(float(errors.mean()), float(errors.max()), float(rank))


def _shown(errors: Errors) -> tuple[str, str, str]:
    return f"{errors.mean:.1%}", f"{errors.largest:.1%}", f"{errors.spearman:.3f}"
