"""Uniform widths: one width multiplier that meets the budget, which every other method has to beat.

That is the original network of a run, see `furs_jax.jobs.vectors.initial_network`.
"""

from furs_jax.data.dataset import Dataset
from furs_jax.errors import ConfigError
from furs_jax.methods import Method
from furs_jax.networks.network import Network
from furs_jax.options.schema import Options


class Uniform(Method):
    """Finds the original, by computing nothing."""

    finds_original = True

    def check(self, options: Options, net: Network, dataset: Dataset) -> None:
        given = [n for n in ("channels", "channels_from", "init_from") if getattr(options, n)]
        if given and options.mode == "search":
            raise ConfigError(
                f"method=uniform has no use for {given[0]}: its widths are the original's at the "
                f"budget. Leave {given[0]} out, or train what it gives by --config.mode=train"
            )
        if options.mode == "search" and options.kd.teacher == "original":
            raise ConfigError(
                "method=uniform trains the original alone, so kd.teacher can't be that; give the "
                "teacher as a folder in a run's checkpoints/"
            )


PLUGIN = Uniform
