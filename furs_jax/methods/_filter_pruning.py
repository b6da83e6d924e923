"""What methods share that zero filters while a network trains, and end as a smaller network."""

from collections.abc import Sequence

import numpy as np

from furs_jax.errors import ConfigError
from furs_jax.methods import Channels, Finished, Method
from furs_jax.networks.filters import (
    alive,
    filter_weights,
    pruned_network,
    pruned_variables,
    site_filters,
)
from furs_jax.networks.network import Network
from furs_jax.options.schema import Options
from furs_jax.options.units import amount
from furs_jax.run.context import Prepared, Run
from furs_jax.training.step import TrainState
from furs_jax.widths.bounds import site_bounds
from furs_jax.widths.kept import removed_within


class FilterPruning(Method):
    """Keeps the filters of the highest `scores` in a network of `prune.width_multiplier`.

    It begins with initial weights, or with those of `init_from`.
    """

    prunes = True
    unused = ("channels", "channels_from")

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """How much a site's filters count, shape (C,), of their weights, shape (C, F)."""
        raise NotImplementedError

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode != "search":
            return
        net = prepared.unpruned
        site_filters(net)
        most = prepared.cost.on(net).of(net.channels)
        if most < prepared.budget:
            raise ConfigError(
                f"method={options.method} begins with a network of {amount(most)} "
                f"{prepared.cost.unit}, which is less than the budget of "
                f"{amount(prepared.budget)}; give a larger prune.width_multiplier"
            )
        _removed(options, prepared, net, [np.arange(c) for c in net.channels])

    def network(self, run: Run) -> Network:
        return run.unpruned

    def check_journal(self, run: Run) -> None:
        if run.workdir.rounds.read():
            raise run.workdir.rounds.damaged(1, f"method={run.options.method} writes none")

    def chosen(self, run: Run, state: TrainState) -> list[np.ndarray]:
        """Of each site the channels whose filters are zeroed: those of the lowest scores."""
        net = run.task.net
        weights = [filter_weights(state.params, own) for own in site_filters(net)]
        ranks = [np.argsort(-self.scores(own), kind="stable") for own in weights]
        return _removed(run.options, run, net, ranks)

    def finish(self, run: Run, channels: Channels, state: TrainState) -> Finished:
        """The network without the channels whose filters are zero."""
        net = run.task.net
        removed = [np.flatnonzero(~alive(state.params, own)) for own in site_filters(net)]
        variables = pruned_variables(net, removed, state.variables)
        return Finished(pruned_network(net, removed), variables)


def _removed(
    options: Options, run: Run | Prepared, net: Network, ranks: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """One channel at least is left of a site, but for what is said of it by name."""
    bounds = site_bounds(options.reallocate, net, least=1)
    widths = bounds.min_channels, bounds.max_channels
    return removed_within(net, ranks, run.budget, run.cost.on, *widths)
