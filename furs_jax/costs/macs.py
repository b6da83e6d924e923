"""Multiply-accumulates of one image: what the papers call FLOPs."""

from collections.abc import Sequence
from typing import Any

from furs_jax.costs import Cost


class Macs(Cost):
    """Of convolutions and dense layers, nothing else; whole numbers."""

    name = unit = "MACs"

    def of(self, channels: Sequence[int]) -> int:
        return self.net.macs(channels)

    def budget(self, given: float) -> int:
        return int(given)

    def record(self, channels: Sequence[int]) -> dict[str, Any]:
        del channels
        return {}


PLUGIN = Macs
