"""Milliseconds of a forward pass, from a table that was measured on the device at hand."""

import functools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from furs_jax.costs import Cost
from furs_jax.errors import ConfigError
from furs_jax.machine.sealed import AGAIN, damaged, digest_of, read_json
from furs_jax.networks.counting import MacsModel
from furs_jax.networks.segments import Segment, module_segments

FILE = "latency.json"
MOST_ERROR = 0.1  # mean relative error of predictions, above which a table is not to be used
_SPAN = 2.0  # times as wide and as narrow: what a smoothed marginal looks at
_LEAST = 0.1  # of an equal share of the whole time: what each site counts at least
_AGAIN = "measure anew: python -m furs_jax.bench latency, with the same config"


class SegmentTimes(NamedTuple):
    """What one segment of the network takes, by its widths.

    Attributes:
      columns: of the segment's sizes those that tell its widths, among all factors of the formula.
      rows: widths and then ms, float64, shape (R, len(columns) + 1).
    """

    columns: tuple[int, ...]
    rows: np.ndarray


class LatencyTable(NamedTuple):
    """What was measured of a network.

    Attributes:
      measured: see `conditions`.
      formula: the sizes of all segments by the channels.
      places: of each segment.
      units, widest: each site's widths are multiples of one up to the other.
      constant, factor: ms of a network = constant + factor * those of its segments.
      mean_error: mean relative error over networks that neither was fitted to.
    """

    measured: dict[str, Any]
    formula: MacsModel
    places: tuple[SegmentTimes, ...]
    units: tuple[int, ...]
    widest: tuple[int, ...]
    constant: float
    factor: float
    mean_error: float

    def ms(self, channels: Sequence[int]) -> float:
        """Of a network; inf where one of its layers is wider than any that was measured."""
        values = self.formula.factors(channels)
        return self.constant + self.factor * math.fsum(
            _ms(place, values[list(place.columns)]) for place in self.places
        )

    def record(self) -> dict[str, Any]:
        """As in a file."""
        formula = {name: np.asarray(x).tolist() for name, x in vars(self.formula).items()}
        places = [{"columns": list(p.columns), "rows": p.rows.tolist()} for p in self.places]
        return {**self._asdict(), "formula": formula, "places": places}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Self:
        """
        Raises:
          ValueError, LookupError, TypeError: it is none.
        """
        dtypes = {"largest": bool, "second": int}
        formula = {
            name: np.asarray(x, dtypes.get(name, float)) for name, x in record["formula"].items()
        }
        formula["products"] = int(formula["products"])
        formula["largest"] = formula["largest"].reshape(-1, formula["slopes"].shape[1])
        places = tuple(
            SegmentTimes(tuple(p["columns"]), np.array(p["rows"], float)) for p in record["places"]
        )
        numbers = {name: float(record[name]) for name in ("constant", "factor", "mean_error")}
        units, widest = (tuple(map(int, record[name])) for name in ("units", "widest"))
        if not all(p.rows.shape[1:] == (len(p.columns) + 1,) for p in places):
            raise ValueError("a row has not a time for its widths")
        if not len(units) == len(widest) == formula["slopes"].shape[1]:
            raise ValueError("its sites are not as many as its widths")
        if not all(1 <= unit <= most for unit, most in zip(units, widest, strict=True)):
            raise ValueError("a site has no widths")
        model = MacsModel(**formula)
        table = cls(dict(record["measured"]), model, places, units, widest, **numbers)
        if not 0 < table.ms(widest) < math.inf:
            raise ValueError("its widest network takes no time")
        return table


def conditions(device: str, dtype: str, batch_size: int) -> dict[str, Any]:
    """What times are of, beside the network."""
    return {"device": device, "jax": jax.__version__, "dtype": dtype, "batch_size": batch_size}


def widths_of(formula: MacsModel) -> list[tuple[int, ...]]:
    """Of each segment the factors that tell its widths: no constant, and none twice."""
    kinds: list[Any] = [
        (*slopes, offset) if np.any(slopes) else None
        for slopes, offset in zip(formula.slopes.tolist(), formula.offsets.tolist(), strict=True)
    ]
    for place, sites, least in zip(formula.second, formula.largest, formula.least, strict=True):
        kinds[place] = ("largest", *sites.tolist(), float(least))
    each = len(kinds) // formula.products
    found = []
    for first in range(0, len(kinds), each):
        own = {kinds[f]: f for f in reversed(range(first, first + each)) if kinds[f] is not None}
        found.append(tuple(sorted(own.values())))
    return found


class Latency(Cost):
    """ms of a forward pass of `batch_size` images: a constant, and a factor times the segments'.

    Segments are looked up by their widths. Between widths that were measured the next wider ones
    count, as when a layer is padded to them; nothing is interpolated. So only widths that are
    multiples of `multiples()` are predicted as they are, and no other is searched.

    A staircase has flat steps, and a wider layer may be faster than a narrow one, so `smoothed`
    marginals are the slopes of a straight line, by least squares, through what a site takes at
    half to twice its width. Where that is flat or falls, a site counts as if it took a tenth of an
    equal share of what the network takes.
    """

    name, unit = "latency", "ms"
    is_stepped = is_measured = True

    def of(self, channels: Sequence[int]) -> float:
        return self._table().ms(channels)

    def smoothed(self, channels: Sequence[int]) -> np.ndarray:
        table, found = self._table(), []
        for site, (width, unit, most) in enumerate(
            zip(channels, table.units, table.widest, strict=True)
        ):
            every = np.arange(unit, most + 1, unit)
            near = every[(every >= width / _SPAN) & (every <= width * _SPAN)]
            near = near if len(near) > 1 else every
            times = [self.of([*channels[:site], w, *channels[site + 1 :]]) for w in near.tolist()]
            found.append(np.polyfit(near, times, 1)[0] if len(near) > 1 else 0.0)
        equal = self.of(channels) / len(channels) / np.asarray(channels)
        return np.maximum(found, _LEAST * equal)

    def multiples(self) -> tuple[int, ...]:
        return self._table().units

    def widest(self) -> tuple[int, ...]:
        return self._table().widest

    def check(self, device: str, dtype: str) -> None:
        table = self._table()
        wrong = [
            f"{name} {table.measured.get(name)}, and this is {value}"
            for name, value in conditions(device, dtype, self.batch_size).items()
            if table.measured.get(name) != value
        ]
        if wrong:
            raise ConfigError(f"cost.table={self.table} was measured with {wrong[0]}; {_AGAIN}")
        if not table.mean_error <= MOST_ERROR:
            raise ConfigError(
                f"cost.table={self.table} predicts whole networks with a mean error of "
                f"{100 * table.mean_error:.1f}%, more than {100 * MOST_ERROR:.0f}%: leave the "
                f"machine to it and {_AGAIN}, in another folder"
            )
        pieces = module_segments(
            self.net.module(self.net.channels, dtype=dtype), self.net.image_shape, self.batch_size
        )
        if not _same_sizes(table.formula, self.net.channels, pieces):
            raise ConfigError(f"cost.table={self.table} is of another network; {_AGAIN}")

    def digest(self) -> str | None:
        return read_table(self.table)[1]

    def _table(self) -> LatencyTable:
        if self.table is None:
            raise ConfigError(
                "latency is measured first: run python -m furs_jax.bench latency "
                "--workdir=DIR with the same config, and give --config.cost.table=DIR"
            )
        table = read_table(self.table)[0]
        if len(table.units) != len(self.net.channels):
            raise ConfigError(f"cost.table={self.table} is of another network; {_AGAIN}")
        return table


PLUGIN = Latency


def _ms(place: SegmentTimes, widths: np.ndarray) -> float:
    """Of a segment: as measured, or of the fastest that is nowhere narrower; inf: there is none."""
    known = place.rows[:, :-1]
    equal = np.all(known == widths, axis=1)
    if equal.any():
        return float(place.rows[equal.argmax(), -1])
    wider = place.rows[np.all(known >= widths, axis=1), -1]
    return float(wider.min()) if len(wider) else math.inf


def _same_sizes(formula: MacsModel, channels: Sequence[int], pieces: Sequence[Segment]) -> bool:
    values = formula.factors(channels).reshape(formula.products, -1)
    sizes = np.ones_like(values)
    if len(pieces) != len(values) or max(len(p.sizes) for p in pieces) > values.shape[1]:
        return False
    for row, piece in zip(sizes, pieces, strict=True):
        row[: len(piece.sizes)] = piece.sizes
    return np.array_equal(values, sizes)


def read_table(path: str) -> tuple[LatencyTable, str]:
    """A table, and the digest of its file, by the file or its folder.

    Raises:
      ConfigError: there is none.
      DamagedError: it has changed since it was written.
    """
    file = pathlib.Path(path).expanduser()
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise ConfigError(
            f"cost.table={path}: there is no {FILE}; it is written at the end of python -m "
            "furs_jax.bench latency, which goes on where it was stopped"
        )
    stamp = os.stat(file)
    return _read_table(file, (stamp.st_size, stamp.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _read_table(file: pathlib.Path, stamp: tuple[int, int]) -> tuple[LatencyTable, str]:
    record = read_json(file, AGAIN)
    try:
        return LatencyTable.of_record(record), digest_of(record)
    except (ValueError, LookupError, TypeError) as error:
        raise damaged(file, f"it is no table of latencies ({error})", AGAIN) from error
