"""A table of what a network's layers take: python -m furs_jax.bench latency --workdir=DIR.

`cost.resource=latency` and `cost.limits.latency` predict whole networks from it.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from furs_jax.bench.whole_networks import judged
from furs_jax.costs.latency import (
    FILE,
    MOST_ERROR,
    LatencyTable,
    SegmentTimes,
    conditions,
    widths_of,
)
from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.jobs.forward_time import seconds_per_call
from furs_jax.jobs.prepare import prepare
from furs_jax.machine.sealed import write_json
from furs_jax.networks.counting import MacsModel, fit_macs
from furs_jax.networks.network import Network
from furs_jax.networks.segments import Segment, module_segments
from furs_jax.options.schema import Options
from furs_jax.run.console import Console
from furs_jax.run.journal import Journal
from furs_jax.training.loading import net_shapes
from furs_jax.training.trainer import Task

Channels = tuple[int, ...]

_LEVELS = 8  # about so many widths of each site are measured, up to twice what it has
_REPEATS = 32  # of a segment within one call
_LEAST = 0.01  # seconds of one timing
_TURNS = 5
_GROUP = 32  # segments that take turns


def bench(options: Options, workdir: str) -> LatencyTable:
    """Times every layer's shape at a grid of widths, and says how well that predicts networks.

    latency.jsonl has a line for each shape that was timed, and the same command goes on with it;
    latency.json is the table, written in the end.

    Raises:
      ConfigError: the network's layers don't follow its widths in a way that can be tabulated.
      WorkdirError: the folder holds timings of another network, device or version.
    """
    cost = dataclasses.replace(
        options.cost,
        resource="macs",
        budget=None,
        limits=dataclasses.replace(options.cost.limits, latency=None),
    )
    prepared = prepare(dataclasses.replace(options, cost=cost))
    task, console = prepared.task, Console()
    net, batch_size = task.net, options.cost.batch_size
    folder = pathlib.Path(workdir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    measured = conditions(task.devices[0].device_kind, task.dtype, batch_size)
    journal = _journal(folder, {**measured, "network": net.name, "image": list(net.image_shape)})

    @functools.lru_cache(maxsize=1024)
    def pieces(channels: Channels) -> list[Segment]:
        module = net.module(channels, dtype=task.dtype)
        return module_segments(module, net.image_shape, batch_size)

    console.print(f"tracing {net.name}")
    formula = fit_macs(lambda c: [p.sizes for p in pieces(tuple(c))], net.channels, net.multiple)
    if formula is None:
        raise ConfigError(f"the sizes of {net.name}'s layers don't follow from its widths alone")
    units, widest = grid(net, prepared.start, options.reallocate.channel_multiple)
    columns = widths_of(formula)
    vectors = [net.channels, prepared.start, *designed(formula, columns, units, widest)]
    shapes = _shapes(formula, columns, vectors, pieces)
    times = _timed([piece for own in shapes for piece in own.values()], task, journal, console)
    places = tuple(
        SegmentTimes(own, np.array([[*w, times[piece.key]] for w, piece in found.items()], float))
        for own, found in zip(columns, shapes, strict=True)
    )
    table = LatencyTable(measured, formula, places, units, widest, 0.0, 1.0, 0.0)
    console.print("whole networks are timed")
    table, told, text = judged(table, task, options.seed)
    write_json(folder / FILE, {**table.record(), "networks": told})
    print(text)
    if table.mean_error > MOST_ERROR:
        print(
            f"A search refuses this table: its mean error is above {MOST_ERROR:.0%}. Leave the "
            "machine to it and measure anew, in another folder"
        )
    else:
        print(f"--config.cost.resource=latency --config.cost.table={folder}")
    return table


def _journal(folder: pathlib.Path, begun: dict[str, Any]) -> Journal:
    journal = Journal(folder / "latency.jsonl")
    lines = journal.read()
    if not lines:
        journal.append(begun)
    elif lines[0] != begun:
        differing = [
            f"{k} {lines[0].get(k)}, here {v}" for k, v in begun.items() if lines[0].get(k) != v
        ]
        raise WorkdirError(
            f"{journal.path} has timings of {differing[0]}; give another --workdir, or delete it"
        )
    return journal


def grid(net: Network, start: Sequence[int], multiple: int) -> tuple[Channels, Channels]:
    """Each site's unit, of which measured widths are multiples, and the widest of them.

    About `_LEVELS` widths up to twice the wider of the network's own and the first round's.
    """
    least = math.lcm(multiple, net.multiple)
    units, widest = [], []
    for width in np.maximum(net.channels, start).tolist():
        unit = math.lcm(least, 2 ** max(round(math.log2(2 * width / _LEVELS)), 0))
        units.append(unit)
        widest.append(max(2 * width // unit, 1) * unit)
    return tuple(units), tuple(widest)


def designed(
    formula: MacsModel, columns: Sequence[tuple[int, ...]], units: Channels, widest: Channels
) -> Iterator[Channels]:
    """Vectors among which a layer's input and output have each pair of widths of the grid.

    Sites that meet in a sum are equally wide in them. The others have one of two numbers i and j,
    or i + j, i + 2 j and so on, such that those that meet in a layer differ.
    """
    colours = _colours(formula, columns)
    levels = [range(unit, most + 1, unit) for unit, most in zip(units, widest, strict=True)]
    count = max(map(len, levels))
    for i, j in itertools.product(range(count), repeat=2):
        steps = [i if colour == 0 else (j + (colour - 1) * i) % count for colour in colours]
        yield tuple(own[step * len(own) // count] for own, step in zip(levels, steps, strict=True))


def _colours(formula: MacsModel, columns: Sequence[tuple[int, ...]]) -> list[int]:
    """A number for each site: equal in one width of a layer, others in its other widths."""
    sites = formula.slopes != 0  # (F, L)
    sites[formula.second] = formula.largest
    group = list(range(sites.shape[1]))  # each site's first one
    for factor in itertools.chain.from_iterable(columns):
        together = {group[site] for site in np.flatnonzero(sites[factor])}
        group = [min(together) if own in together else own for own in group]
    meets: dict[int, set[int]] = {own: set() for own in group}
    for own in columns:
        here = {group[site] for factor in own for site in np.flatnonzero(sites[factor])}
        for one in here:
            meets[one] |= here - {one}
    colour: dict[int, int] = {}
    for one in sorted(meets):
        taken = {colour.get(other) for other in meets[one]}
        colour[one] = next(c for c in itertools.count() if c not in taken)
    return [colour[own] for own in group]


def _shapes(
    formula: MacsModel,
    columns: Sequence[tuple[int, ...]],
    vectors: Sequence[Channels],
    pieces: Callable[[Channels], list[Segment]],
) -> list[dict[Channels, Segment]]:
    """Of each place in the network the segments there, by their widths, that any vector has."""
    shapes: list[dict[Channels, Segment]] = [{} for _ in columns]
    for vector in vectors:
        values = formula.factors(vector)
        widths = [tuple(values[list(own)].astype(int).tolist()) for own in columns]
        if any(own not in known for own, known in zip(widths, shapes, strict=True)):
            for own, known, piece in zip(widths, shapes, pieces(vector), strict=True):
                known.setdefault(own, piece)
    return shapes


def _timed(
    pieces: Sequence[Segment], task: Task, journal: Journal, console: Console
) -> dict[str, float]:
    """ms of each segment, by its key; those that are in the journal are not timed again."""
    times = {line["segment"]: line["ms"] for line in journal.read()[1:]}
    left = list({p.key: p for p in pieces if p.key not in times}.values())
    device, bytes_of_net = jax.local_devices()[0], _bytes(task.net)
    every = len({p.key for p in pieces})
    for first in range(0, len(left), _GROUP):
        group = left[first : first + _GROUP]
        console.print(f"{every - len(left) + first:,} of {every:,} shapes of layers are timed")
        calls = {p.key: _repeated(p, bytes_of_net, device) for p in group}
        for key, ms in _in_turn(calls).items():
            journal.append({"segment": key, "ms": ms / _REPEATS})
            times[key] = ms / _REPEATS
        jax.clear_caches()
    return times


def _in_turn(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """ms of a call of each, the median of some turns."""
    often, turns = {}, {key: [] for key in calls}
    for key, call in calls.items():
        call()  # compiles
        often[key] = 1 + int(_LEAST / seconds_per_call(call, 1))
    for _ in range(_TURNS):
        for key, call in calls.items():
            turns[key].append(1000 * seconds_per_call(call, often[key]))
    return {key: statistics.median(own) for key, own in turns.items()}


def _repeated(piece: Segment, bytes_of_net: int, device: jax.Device) -> Callable[[], Any]:
    """A call that computes a segment `_REPEATS` times, one after the other.

    Called alone, a small layer takes less than what it takes to call it. In a loop it runs as in
    the network, but for its kernels, which would lie in a cache: so every time it has others, as
    many as make up the whole network's variables.
    """
    rng = np.random.default_rng(0)
    arrays = [_like(v.aval, rng) for v in piece.program.invars]
    own = sum(arrays[place].nbytes for place in piece.kernels)
    copies = min(_REPEATS, math.ceil(bytes_of_net / own)) if own else 1
    inputs = [
        np.stack([array] * copies) if place in piece.kernels else array
        for place, array in enumerate(arrays)
    ]

    def repeat(inputs: Sequence[jax.Array]) -> Any:
        def once(number: jax.Array, made: Any) -> Any:
            del made
            # The barrier keeps what is the same each time within the loop.
            *given, number = lax.optimization_barrier((*inputs, number))
            for place in piece.kernels:
                given[place] = lax.dynamic_index_in_dim(
                    inputs[place], number % copies, keepdims=False
                )
            return jax.core.eval_jaxpr(piece.program, (), *given)

        outputs = [jnp.zeros(v.aval.shape, v.aval.dtype) for v in piece.program.outvars]
        return lax.fori_loop(0, _REPEATS, once, outputs)

    return functools.partial(jax.jit(repeat), jax.device_put(inputs, device))


def _like(aval: Any, rng: np.random.Generator) -> np.ndarray:
    if not jnp.issubdtype(aval.dtype, jnp.floating):
        return np.zeros(aval.shape, aval.dtype)
    return rng.uniform(0.1, 1, aval.shape).astype(aval.dtype)


def _bytes(net: Network) -> int:
    return sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(net_shapes(net, net.channels)))
