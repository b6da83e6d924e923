"""Trained values of a network: what its file's size follows."""

from collections.abc import Sequence

from furs_jax.costs import Cost
from furs_jax.networks.counting import MacsModel


class Params(Cost):
    """Weights, biases, and scales and biases of BatchNorm; its running statistics are not counted.

    Whole numbers.
    """

    name, unit = "parameters", "params"

    def of(self, channels: Sequence[int]) -> int:
        return self.net.params(channels)

    def formula(self) -> MacsModel | None:
        return self.net.params_formula()

    def budget(self, given: float) -> int:
        return int(given)


PLUGIN = Params
