"""A run's folder as the report reads it: finished, or as far as it has come.

Nothing is built, and nothing imported that the files name: they may be somebody else's.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.networks.depths import sites_at
from furs_jax.networks.recorded import RecordedNetwork, Size, read_network
from furs_jax.report.allowance import Allowance, allowance
from furs_jax.report.grid import all_sites, spread_out
from furs_jax.report.run_checks import METRICS, NETWORKS, check_run
from furs_jax.run.folder import Files
from furs_jax.run.forecast import Forecast, Stage, forecast, stages
from furs_jax.run.lines import is_reallocation, selected, selected_depths
from furs_jax.run.statistics import Interval, difference_interval, mean_interval, shown
from furs_jax.run.text import printable

Record = dict[str, Any]
NETWORK_ADJUSTMENT = "network_adjustment"  # what versions before config.method did
# A result's differences of the searched network, by what it is compared with.
_DIFFERENCES = {"original": "difference", "start": "difference_from_start"}


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run's files hold.

    Attributes:
      path: the run's folder.
      begun: config.json, which also tells of data, versions and devices.
      lines: those of rounds.jsonl.
      epochs: the lines of metrics.jsonl, one for each epoch of every training.
      finals: the lines of finals.jsonl, one for each final training.
      result: result.json; None while the run is unfinished.
    """

    path: pathlib.Path
    begun: Record
    lines: list[Record]
    epochs: list[Record]
    finals: list[Record]
    result: Record | None

    @property
    def config(self) -> Record:
        """The resolved options."""
        return self.begun["config"]

    @property
    def record(self) -> Record | None:
        """Of the network; None in runs of versions that wrote none."""
        return self.begun.get("network")

    @property
    def images(self) -> dict[str, int] | None:
        """How many each split has; None in runs of versions that wrote no numbers."""
        return (self.begun.get("data") or {}).get("images")

    @functools.cached_property
    def rounds(self) -> list[Record]:
        """The lines of rounds.jsonl that Network Adjustment wrote."""
        return [line for line in self.lines if is_reallocation(line)]

    @property
    def name(self) -> str:
        return printable(self.path.name)

    @property
    def method(self) -> str:
        return printable(self.config.get("method", NETWORK_ADJUSTMENT))

    @property
    def searches(self) -> bool:
        """Whether it is a search; else it trains one network."""
        return self.config.get("mode", "search") != "train"

    @property
    def data(self) -> str:
        """The data set, without the path of its files."""
        kind, _, rest = self.config["data"]["name"].partition(":")
        if kind == "tfds":
            return printable(rest)
        if kind == "random":
            return printable(f"random {rest.partition(':')[0]}")
        return printable(pathlib.PurePath(rest).name if rest else kind)

    @property
    def title(self) -> str:
        """Network and width, as in "resnet18 0.8x"."""
        name = printable(self.config["network"].rpartition(":")[2])
        if self.allowance.given is not None:
            return f"{name} at {self.allowance.given}"
        width = self.config["width_multiplier"]
        return name if width == 1 else f"{name} {width:g}x"

    @property
    def start(self) -> list[int] | None:
        """The first vector; None where nothing tells it yet."""
        if self.record is not None:
            return list(self.record["start"]["channels"])
        return self.rounds[0]["channels"] if self.rounds else None

    @property
    def original(self) -> list[int] | None:
        """The original network's vector; None where nothing tells it yet."""
        if self.result is not None and "original" in self.result:
            return self.result["original"]["channels"]
        if self.record is not None:
            return list(self.record["original"]["channels"])
        return None if self._was_given_widths else self.start

    @property
    def before(self) -> list[int] | None:
        """What the found vector is drawn beside: what a search began with, else the original."""
        return self.start if self.searches else self.original

    @property
    def _was_given_widths(self) -> bool:
        return any(self.config.get(key) for key in ("channels", "channels_from", "init_from"))

    @property
    def channels(self) -> list[int] | None:
        """The searched vector, as far as the rounds have come, or the trained one."""
        for name in ("searched", "trained"):
            if self.result is not None and name in self.result:
                return self.result[name]["channels"]
        if not self.searches:
            return self.start
        select = self.config["search"].get("select", "last")
        return list(selected(self.rounds, select)) if self.rounds else None

    @property
    def depths(self) -> list[int] | None:
        """Blocks in each stage of the searched or trained network; None where none were asked for.

        As far as the rounds have come.
        """
        for name in ("searched", "trained"):
            if self.result is not None and name in self.result:
                return self.result[name].get("depths")
        select = self.config["search"].get("select", "last")
        return selected_depths(self.rounds, select) if self.rounds else self.config.get("depths")

    @property
    def moved_blocks(self) -> bool:
        """Whether the searched network has other blocks than the original."""
        return bool(self.rounds) and self.depths != self.rounds[0].get("depths")

    @property
    def progress(self) -> str:
        """What is left to do, in words; empty for a finished run."""
        if self.result is not None:
            return ""
        rounds = self.config["search"]["rounds"]
        adjusts = self.searches and self.method == NETWORK_ADJUSTMENT
        if self.searches and not adjusts and not self.begun.get("finals"):
            return f"unfinished: {len(self.finals)} final trainings"
        if adjusts and len(self.rounds) < rounds and not self.finals:
            return f"unfinished: {len(self.rounds)} of {rounds} rounds"
        total = len(self.final_names()) * self.config["final"]["seeds"]
        return f"unfinished: {len(self.finals)} of {total} trainings"

    def final_names(self) -> list[str]:
        """The networks that are trained in the end."""
        if told := self.begun.get("finals"):
            return told
        if not self.searches:
            return ["trained"]
        original = self.config["final"].get("original", True)
        elsewhere = self.original != self.start
        return [*["original"] * original, *["start"] * elsewhere, "searched"]

    @functools.cached_property
    def allowance(self) -> Allowance:
        """What its vectors may cost."""
        return allowance(self.begun, self.result, self.searches)

    @functools.cached_property
    def stages(self) -> list[Stage]:
        """All trainings, as far as they are known."""
        images, names = self.images, self.final_names()
        return stages(self.config, names, images, self.lines, self.epochs, self.finals)

    @property
    def forecast(self) -> Forecast:
        """How far they have come, and how long the rest takes."""
        return forecast(self.stages, self.lines, self.epochs)

    def networks(self) -> dict[str, Record]:
        """Original, start (where it is another) and searched, or the trained one, as far as known.

        Each has channels, macs, params, top1, top5 and seeds.
        top1 and top5 are `Interval`s of fractions, without half widths where there are few seeds,
        and None before the first final training.
        """
        if self.result is not None:
            found = {name: self.result[name] for name in NETWORKS if name in self.result}
            return {
                name: {
                    **entry,
                    **{key: shown(Interval(*entry[key]), len(entry["seeds"])) for key in METRICS},
                }
                for name, entry in found.items()
            }
        if self.searches and not self.rounds and not self.finals:
            return {}
        vectors = {"original": self.original, "start": self.start}
        entries = {}
        for name in self.final_names():
            found = next((line for line in self.finals if line["network"] == name), {})
            channels = found.get("channels") or vectors.get(name, self.channels)
            size = self.sizes.get(tuple(channels or ()), Size(None, None))
            seeds = [record for record in self.finals if record["network"] == name]
            scores = {
                key: shown(mean_interval([s[key] for s in seeds]), len(seeds)) if seeds else None
                for key in METRICS
            }
            entries[name] = {"channels": channels, **size._asdict(), **scores, "seeds": seeds}
            if depths := self.depths if name == "searched" else self.config.get("depths"):
                entries[name]["depths"] = depths
        return entries

    @functools.cached_property
    def sizes(self) -> dict[tuple[int, ...], Size]:
        """MACs and parameters of every vector that the files tell them of."""
        known = {tuple(r["next_channels"]): Size(r["next_macs"], None) for r in self.rounds}
        entries = [*self.rounds, *(self.result[n] for n in NETWORKS if n in (self.result or {}))]
        entries += [self.record[name] for name in ("original", "start")] if self.record else []
        entries += [line for line in self.finals if "channels" in line]  # of what was pruned
        return known | {tuple(e["channels"]): Size(e["macs"], e["params"]) for e in entries}

    def difference(
        self, name: str = "searched", reference: str = "original"
    ) -> dict[str, Interval | None]:
        """A network minus another, as fractions; None where either has no final training.

        Where there are few seeds they have no half widths.
        """
        scores = {name: entry["seeds"] for name, entry in self.networks().items()}
        if name == reference or not scores.get(reference) or not scores.get(name):
            return dict.fromkeys(METRICS)
        entry = _DIFFERENCES.get(reference) if name == "searched" else None
        told = (self.result or {}).get(entry)
        found = {
            key: Interval(*told[key])
            if told
            else difference_interval(
                *([seed[key] for seed in scores[one]] for one in (name, reference))
            )
            for key in METRICS
        }
        fewest = min(len(scores[one]) for one in (name, reference))
        return {key: shown(difference, fewest) for key, difference in found.items()}

    @functools.cached_property
    def network(self) -> RecordedNetwork:
        """The network as the run recorded it.

        Raises:
          ConfigError: the run was begun by a version that recorded none.
        """
        if self.record is None:
            raise ConfigError(
                "the run was begun by an earlier version, which recorded no layers; a report does "
                "not build the network that a run's files name"
            )
        return read_network(self.record, self.sizes)

    def site_names(self, depths: list[int] | None = None) -> list[str]:
        """The sites' names; their numbers where the run recorded none.

        Args:
          depths: blocks in each stage of the network in question; None: the original.
        """
        if self.record is None:
            return [str(site) for site in range(len(self.channels or ()))]
        names = [printable(name) for name in self.network.site_names]
        return sites_at(names, depths) if depths else names

    @functools.cached_property
    def every_site(self) -> list[str]:
        """The names of all sites that any round's network has had."""
        return all_sites(self.site_names(), self.rounds)

    @functools.cached_property
    def grid(self) -> list[Record]:
        """The rounds' lines over `every_site`."""
        names = self.site_names()
        return [spread_out(line, names, self.every_site) for line in self.rounds]


def read_run(path: str | os.PathLike) -> RunRecord:
    """Reads a run's folder, which another process may be writing to.

    Raises:
      WorkdirError: there is no run of a search or a training, or a file is damaged.
    """
    files = Files(path)
    if not files.config.is_file():
        what = "holds no config.json" if files.path.is_dir() else "is no folder"
        raise WorkdirError(f"{path} {what}, so it is no run; give a run's --workdir")
    run = RunRecord(
        files.path,
        files.read_config(),
        files.rounds.read(),
        files.metrics.read(),
        files.finals.read(),
        files.read_result(),
    )
    try:
        check_run(run)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WorkdirError(f"{path} has a damaged file: {error!r}") from error
    if (mode := run.config.get("mode", "search")) not in ("search", "train"):
        raise WorkdirError(
            f"{path} holds a benchmark's trainings ({mode}), whose outcome is its result.json; "
            "give the folder of a search or of mode=train"
        )
    return run
