"""How widths are found: the seam. One file a method, whose class is called `PLUGIN`.

A method that finds a vector has `search`; one that prunes a network while it trains has
`after_epoch` and `finish`. The rest of the package knows methods through `Method` only: what is not
overridden finds nothing and prunes nothing. `config.method` names the file, or a class of the
user's own.
"""

from collections.abc import Sequence
from typing import Any

from furs_jax import plugins
from furs_jax.data.dataset import Dataset
from furs_jax.networks.network import Network
from furs_jax.objectives import Variables
from furs_jax.options.schema import Options
from furs_jax.run.context import Run
from furs_jax.training.step import TrainState

Channels = tuple[int, ...]
Record = dict[str, Any]


class Method:
    """A way to find a channel vector or a pruned network; it keeps no state of its own."""

    def check(self, options: Options, net: Network, dataset: Dataset) -> None:
        """Refuses, before any compute, what the method can't work with.

        Raises:
          ConfigError: an option, the network or the data.
        """

    def search(self, run: Run) -> Channels:
        """The vector to train in the end; resumable, by `run.workdir.rounds`."""
        return run.start

    def is_complete(self, run: Run) -> bool:
        """Whether the journal tells the whole search."""
        return True

    def check_journal(self, run: Run) -> None:
        """Whether each line of the journal follows from the options and the lines before it.

        Raises:
          DamagedError: one doesn't.
        """

    def check_result(self, options: Options, rounds: Sequence[Record], result: Record) -> None:
        """Whether a result tells what the journal's lines tell.

        Raises:
          ValueError, LookupError, TypeError: it doesn't.
        """

    def after_epoch(self, run: Run, state: TrainState, epoch: int) -> TrainState:
        """The state that the searched network's training goes on with, or ends with."""
        return state

    def finish(self, run: Run, channels: Channels, state: TrainState) -> tuple[Channels, Variables]:
        """The network that the trained one of `channels` becomes, and its variables."""
        return channels, state.variables


def load_method(name: str) -> Method:
    """The method that `config.method` names.

    Raises:
      ConfigError: there is none.
    """
    return plugins.behind(plugins.load("methods", name), Method, f"method={name!r}")()
