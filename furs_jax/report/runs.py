"""A run's folder as the report reads it: finished, or as far as it has come."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

from furs_jax.errors import ConfigError, FursError, WorkdirError
from furs_jax.networks import Network, get_network
from furs_jax.report.statistics import Interval, difference_interval, mean_interval
from furs_jax.workdir import Journal, read_json

Record = dict[str, Any]
METRICS = ("top1", "top5")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a run's files hold.

    Attributes:
      path: the run's folder.
      config: the resolved options, as in config.json.
      rounds: the lines of rounds.jsonl, with the state of each round.
      finals: the lines of finals.jsonl, one for each final training.
      result: result.json; None while the run is unfinished.
    """

    path: pathlib.Path
    config: Record
    rounds: list[Record]
    finals: list[Record]
    result: Record | None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def data(self) -> str:
        """The data set, without the path of its files."""
        kind, _, rest = self.config["data"]["name"].partition(":")
        if kind == "tfds":
            return rest
        if kind == "random":
            return f"random {rest.partition(':')[0]}"
        return pathlib.PurePath(rest).name if rest else kind

    @property
    def title(self) -> str:
        """Network and width, as in "resnet18 0.8x"."""
        name = self.config["network"].rpartition(":")[2]
        if self.config.get("flops_budget") is not None:
            return f"{name} at {self.config['flops_budget'] / 1e6:g} MMACs"
        width = self.config["width_multiplier"]
        return name if width == 1 else f"{name} {width:g}x"

    @property
    def start(self) -> list[int] | None:
        """The first round's vector; None before it has ended."""
        return self.rounds[0]["channels"] if self.rounds else None

    @property
    def original(self) -> list[int] | None:
        """The original network's vector; None where nothing tells it yet.

        Raises:
          FursError: the run starts from another vector and its network can't be built.
        """
        if self.result is not None and "original" in self.result:
            return self.result["original"]["channels"]
        if self.rounds and self._starts_elsewhere:
            return list(self.network.channels)
        return self.start

    @property
    def _starts_elsewhere(self) -> bool:
        """Whether a vector was given to begin with."""
        return any(self.config.get(key) for key in ("channels", "channels_from", "init_from"))

    @property
    def channels(self) -> list[int] | None:
        """The searched vector, or that of the latest round."""
        if self.result is not None and "searched" in self.result:
            return self.result["searched"]["channels"]
        return self.rounds[-1]["next_channels"] if self.rounds else None

    @property
    def progress(self) -> str:
        """What is left to do, in words; empty for a finished run."""
        if self.result is not None:
            return ""
        rounds = self.config["search"]["rounds"]
        if len(self.rounds) < rounds:
            return f"unfinished: {len(self.rounds)} of {rounds} rounds"
        networks = 3 if self._starts_elsewhere else 2
        total = networks * self.config["final"]["seeds"]
        return f"unfinished: {len(self.finals)} of {total} trainings"

    def networks(self) -> dict[str, Record]:
        """Of original, start (where it is another) and searched, as far as known.

        Each has channels, macs, params, top1, top5 and seeds.
        top1 and top5 are `Interval`s of fractions, and None before the first final training.
        """
        if self.result is not None:
            names = ("original", "start", "searched")
            found = {name: self.result[name] for name in names if name in self.result}
            return {
                name: {**entry, **{key: Interval(*entry[key]) for key in METRICS}}
                for name, entry in found.items()
            }
        if not self.rounds:
            return {}
        first, last = self.rounds[0], self.rounds[-1]
        begun = (first["channels"], first["macs"], first["params"])
        known = (
            {"original": (None, None, None), "start": begun}
            if self._starts_elsewhere
            else {"original": begun}
        )
        sizes = {**known, "searched": (last["next_channels"], last["next_macs"], None)}
        entries = {}
        for name, (channels, macs, params) in sizes.items():
            seeds = [record for record in self.finals if record["network"] == name]
            scores = {
                key: mean_interval([s[key] for s in seeds]) if seeds else None for key in METRICS
            }
            sized = {"channels": channels, "macs": macs, "params": params}
            entries[name] = {**sized, **scores, "seeds": seeds}
        return entries

    def difference(self, name: str = "searched") -> dict[str, Interval | None]:
        """A network minus the original, as fractions; None where either has no final training."""
        scores = {name: entry["seeds"] for name, entry in self.networks().items()}
        if name == "original" or not scores.get("original") or not scores.get(name):
            return dict.fromkeys(METRICS)
        return {
            key: difference_interval(
                *([seed[key] for seed in scores[one]] for one in (name, "original"))
            )
            for key in METRICS
        }

    @functools.cached_property
    def network(self) -> Network:
        """The searched network, for its layers; image size and classes are the network's own.

        Raises:
          FursError: it can't be built, or has other sites than the run's vector.
        """
        config, original = self.config, self.start
        if self.result is not None and "original" in self.result:
            original = self.result["original"]["channels"]
        if original is None:
            raise ConfigError("no round has ended yet")
        padding = config.get("padding", "max")
        net = get_network(config["network"], config["width_multiplier"], padding=padding)
        if len(net.channels) != len(original):
            raise ConfigError(
                f"{net.name} has {len(net.channels)} sites here, the run's {len(original)}"
            )
        if config.get("flops_budget") is not None:
            # The uniform width came from the budget and the data's image size. Single channels
            # were added to it, so the site that grew least tells it, for the stem.
            width = min(c / base for c, base in zip(original, net.channels, strict=True))
            net = get_network(config["network"], width, padding=padding)
        return net

    def site_names(self) -> list[str]:
        """The sites' names; their numbers where the network can't be built."""
        try:
            return list(self.network.site_names)
        except (FursError, ImportError):
            return [str(site) for site in range(len(self.channels or ()))]


def read_run(path: str | os.PathLike) -> Run:
    """Reads a run's folder, which another process may be writing to.

    Raises:
      WorkdirError: there is no run.
    """
    folder = pathlib.Path(path).expanduser().absolute()
    if not (folder / "config.json").is_file():
        what = "holds no config.json" if folder.is_dir() else "is no folder"
        raise WorkdirError(f"{path} {what}, so it is no run; give a run's --workdir")
    result = folder / "result.json"
    try:
        return Run(
            folder,
            read_json(folder / "config.json")["config"],
            Journal(folder / "rounds.jsonl").read(),
            Journal(folder / "finals.jsonl").read(),
            read_json(result) if result.exists() else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(f"{path} has a damaged file: {error!r}") from error
