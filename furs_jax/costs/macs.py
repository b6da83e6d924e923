"""Multiply-accumulates of one image: what the papers call FLOPs."""

from collections.abc import Sequence

from furs_jax.costs import Cost
from furs_jax.networks.counting import MacsModel


class Macs(Cost):
    """Of convolutions and dense layers, nothing else; whole numbers."""

    name = unit = "MACs"

    def of(self, channels: Sequence[int]) -> int:
        return self.net.macs(channels)

    def formula(self) -> MacsModel | None:
        return self.net.macs_formula()

    def budget(self, given: float) -> int:
        return int(given)


PLUGIN = Macs
