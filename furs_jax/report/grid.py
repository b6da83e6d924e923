"""Rounds side by side where whole blocks came and went: over every site that there has been."""

from collections.abc import Sequence
from typing import Any

from furs_jax.networks.depths import sites_at

Record = dict[str, Any]


def all_sites(names: Sequence[str], rounds: Sequence[Record]) -> list[str]:
    """The names of all sites, in order; those of the original where no block has moved."""
    depths = [line[key] for line in rounds for key in ("depths", "next_depths") if key in line]
    return sites_at(names, [max(stage) for stage in zip(*depths, strict=True)]) if depths else names


def spread_out(line: Record, names: Sequence[str], every: Sequence[str]) -> Record:
    """A line of rounds.jsonl over all sites; one that is not there has no channels.

    Args:
      line: as it was written.
      names: of the original's sites.
      every: of `all_sites`.
    """
    if "depths" not in line:
        return line
    own, following = (sites_at(names, line[key]) for key in ("depths", "next_depths"))
    places = [every.index(name) for name in own]

    def over_all(key: str, sites: Sequence[str]) -> list | None:
        if line.get(key) is None:
            return None
        values = dict(zip(sites, line[key], strict=True))
        return [values.get(name, 0) for name in every]

    return {
        **line,
        **{key: over_all(key, own) for key in ("channels", "furs", "furs_stderr")},
        "next_channels": over_all("next_channels", following),
        **{key: [places[site] for site in line[key]] for key in ("increased", "decreased")},
    }
