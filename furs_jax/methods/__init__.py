"""How widths are found: the seam. One file a method, whose class is called `PLUGIN`.

A method that finds a vector has `search`; one that prunes a network while it trains has
`network`, `after_epoch` and `finish`. The rest of the package knows methods through `Method` only:
what is not overridden finds nothing and prunes nothing. `config.method` names the file, or a class
of the user's own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from furs_jax import plugins
from furs_jax.networks.network import Network
from furs_jax.objectives import Objective, Variables
from furs_jax.options.schema import Options
from furs_jax.run.context import Prepared, Run
from furs_jax.training.step import TrainState

Channels = tuple[int, ...]
Record = dict[str, Any]


class Finished(NamedTuple):
    """What the training of the searched network has ended as."""

    net: Network  # of the vector that is tested
    variables: Variables
    told: Record | None = None  # what else the training's line of finals.jsonl holds


class Method:
    """A way to find a channel vector or a pruned network; it keeps no state of its own.

    Attributes:
      prunes: whether the searched network gets its widths while it trains. That training, and not
        the search, then begins with the weights of `init_from`, which are those of `network`.
      moves_in_units: whether all widths that it asks the cost of are multiples within
        `Prepared.bounds`, so that it can do with a cost that is known of these alone.
      moves_blocks: whether it moves whole blocks where `search.blocks` asks for it.
      unused: options of what a search begins with that it has no use for, and refuses.
    """

    prunes = False
    moves_in_units = False
    moves_blocks = False
    unused: tuple[str, ...] = ()

    def check(self, options: Options, prepared: Prepared) -> None:
        """Refuses, before any compute and before there is a folder, what the method can't do.

        Raises:
          ConfigError: an option, the network or the data.
        """

    def network(self, run: Run) -> Network:
        """The network of which the searched one is a vector: its module, and its own vector."""
        return run.task.net

    def search(self, run: Run) -> Channels:
        """The vector to train in the end; resumable, by `run.workdir.rounds`."""
        return self.network(run).channels if self.prunes else run.start

    def stays(self, run: Run) -> bool:
        """Whether what it has found is what it began with, which is trained once, then."""
        return False

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

    def prediction(self, rounds: Sequence[Record]) -> Record | None:
        """What the journal's lines say that the found network gains; None where nothing."""

    def objective(self, run: Run, objective: Objective) -> Objective:
        """What the searched network's training minimises, where it would minimise `objective`.

        Of this and the two below the run's network, `run.task.net`, is `network(run)`.
        """
        return objective

    def after_epoch(self, run: Run, state: TrainState, epoch: int) -> TrainState:
        """The state that the searched network's training goes on with, or ends with.

        Args:
          epoch: how many are done; 0 before the first, of the state that is begun with.
        """
        return state

    def finish(self, run: Run, channels: Channels, state: TrainState) -> Finished:
        """What the trained network of `channels` is tested as."""
        return Finished(run.task.net.of(channels), state.variables)


def load_method(name: str) -> Method:
    """The method that `config.method` names.

    Raises:
      ConfigError: there is none.
    """
    return plugins.behind(plugins.load("methods", name), Method, f"method={name!r}")()
