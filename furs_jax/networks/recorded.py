"""A network as a run's config.json records it, so that whoever reads the run need not build it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from furs_jax.errors import ConfigError
from furs_jax.networks.layers import Connections, Layer, Shortcut

Record = dict[str, Any]


class Size(NamedTuple):
    """What one channel vector costs; None where nothing tells it."""

    macs: int | None
    params: int | None


@dataclasses.dataclass(frozen=True)
class RecordedNetwork:
    """What a run tells of its network. It can be drawn, and neither built nor applied.

    Attributes:
      name: as the config names it.
      image_shape: (H, W, C) of the run's images, which MACs are counted for.
      num_classes: of the run's data.
      channels: the original's vector.
      table: the original's layers.
      connections: None where they could not be found.
      sizes: of the vectors that the run recorded.
    """

    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    channels: tuple[int, ...]
    table: tuple[Layer, ...]
    connections: Connections | None
    sizes: Mapping[tuple[int, ...], Size]

    @property
    def site_names(self) -> tuple[str, ...]:
        """The name of each site's layer, as of `Network`."""
        names = {layer.site: layer.name for layer in self.table}
        return tuple(names[site] for site in range(len(self.channels)))

    def layers(self, channels: Sequence[int]) -> tuple[Layer, ...]:
        """The table of layers of the original's vector.

        Raises:
          ConfigError: another vector is asked for.
        """
        if tuple(channels) != self.channels:
            raise ConfigError(f"the run has recorded no table of layers of {list(channels)}")
        return self.table

    def macs(self, channels: Sequence[int]) -> int:
        """Multiply-accumulates of one of the run's images, of a vector of the run.

        Raises:
          ConfigError: the run has not recorded them.
        """
        return self._size(channels, "macs")

    def params(self, channels: Sequence[int]) -> int:
        """Number of trained values of a vector of the run.

        Raises:
          ConfigError: the run has not recorded it.
        """
        return self._size(channels, "params")

    def _size(self, channels: Sequence[int], what: str) -> int:
        size = getattr(self.sizes.get(tuple(channels)), what, None)
        if size is None:
            raise ConfigError(f"the run has not recorded the {what} of {list(channels)}")
        return size


def read_network(record: Record, sizes: Mapping[tuple[int, ...], Size]) -> RecordedNetwork:
    """The network of a record of `networks.recording`, which may come from anywhere.

    Raises:
      ValueError: it is no such record.
    """
    try:
        known = {
            tuple(entry["channels"]): Size(entry["macs"], entry["params"])
            for entry in (record["original"], record["start"])
        }
        net = RecordedNetwork(
            name=record["name"],
            image_shape=tuple(record["image_shape"]),
            num_classes=record["num_classes"],
            channels=tuple(record["original"]["channels"]),
            table=tuple(map(_read_layer, record["layers"])),
            connections=_read_connections(record["connections"]),
            sizes={**sizes, **known},
        )
        _check(net, record)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the record of its network is damaged: {error!r}") from error
    return net


def _read_layer(row: Record) -> Layer:
    kernel = row["kernel"]
    return Layer(**{**row, "kernel": tuple(kernel) if isinstance(kernel, list) else kernel})


def _read_connections(record: Record | None) -> Connections | None:
    if record is None:
        return None
    return Connections(
        tuple(Shortcut(tuple(s["past"]), s["projection"]) for s in record["shortcuts"]),
        *(tuple(map(tuple, record[field])) for field in ("concatenated", "reads")),
        tuple(record.get("strided", ())),
        record["branches"],
    )


def _check(net: RecordedNetwork, record: Record) -> None:
    """Raises ValueError where a value is not what a network can have."""
    widths = [*net.channels, *record["start"]["channels"], *net.image_shape, net.num_classes]
    numbers = [n for row in net.table if row.site is not None for n in (row.height, row.outputs)]
    numbers += [row.height + 1 for row in net.table]  # what is no layer has none
    sites = {row.site for row in net.table} - {None}
    ways = net.connections
    groups = [*ways.concatenated, *ways.reads, ways.strided] if ways else []
    groups += [shortcut.past for shortcut in ways.shortcuts] if ways else []
    named = {site for group in groups for site in group}
    for wrong, what in (
        (not all(isinstance(n, str) for n in (net.name, *(r.name for r in net.table))), "names"),
        (not all(isinstance(n, int) and n > 0 for n in (*widths, *numbers)), "sizes"),
        (len(net.image_shape) != 3, "image_shape"),
        (len(record["start"]["channels"]) != len(net.channels), "start"),
        (sites != set(range(len(net.channels))) or not named <= sites, "sites"),
    ):
        if wrong:
            raise ValueError(f"the record of its network is damaged: its {what} can't be")
