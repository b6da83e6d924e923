"""Uniform widths: one width multiplier that meets the budget, which every other method has to beat.

That is the original network of a run, see `furs_jax.jobs.vectors.initial_network`.
"""

from furs_jax.errors import ConfigError
from furs_jax.methods import Method
from furs_jax.options.schema import Options
from furs_jax.run.context import Prepared, Run


class Uniform(Method):
    """Finds the original, by computing nothing."""

    moves_in_units = True
    unused = ("channels", "channels_from", "init_from")

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode == "search" and options.kd.teacher == "original":
            raise ConfigError(
                "method=uniform trains the original alone, so kd.teacher can't be that; give the "
                "teacher as a folder in a run's checkpoints/"
            )

    def stays(self, run: Run) -> bool:
        return True


PLUGIN = Uniform
