"""How a change of widths changes a network's size, in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from furs_jax.errors import ConfigError
from furs_jax.networks.recorded import RecordedNetwork

if TYPE_CHECKING:
    from furs_jax.networks.network import Network


def size_changes(
    net: "Network | RecordedNetwork", before: Sequence[int], after: Sequence[int]
) -> list[str]:
    """MACs and parameters of two vectors, in millions, as far as they are known."""
    told = []
    for count, what in ((net.macs, "multiply-accumulates"), (net.params, "parameters")):
        try:
            sizes = " → ".join(f"{count(vector) / 1e6:.4g}" for vector in (before, after))
            told.append(f"{sizes} M {what}")
        except ConfigError:  # of what a run has not recorded
            continue
    return told
