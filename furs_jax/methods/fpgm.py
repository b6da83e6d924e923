"""Filter pruning via geometric median (FPGM; He et al., CVPR 2019).

Section 3.3, equation 7: a site's filters with the smallest sum of distances to all its filters are
zeroed, since the others can stand for them. Their public code masks the gradients of zeroed
filters, so that the choice is made once, before training: with weights of `init_from` it is one of
trained filters, otherwise of random ones. So it is here; but one share of all sites is solved for
the budget, where they give a rate, and BatchNorm's scale and bias are zeroed as well, without which
the pruned network is not the smaller one.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from furs_jax.gates import Gates
from furs_jax.methods._filter_pruning import FilterPruning
from furs_jax.networks.filters import Filters, alive, site_filters, with_zeroed
from furs_jax.objectives import Batch, Forward, Objective, Outcome
from furs_jax.run.context import Run
from furs_jax.training.step import TrainState, replicated


class GeometricMedian(FilterPruning):
    """Zeroes the filters in the middle of the others, once."""

    def scores(self, weights: np.ndarray) -> np.ndarray:
        return cdist(weights, weights).sum(axis=1)

    def objective(self, run: Run, objective: Objective) -> Objective:
        return _WithoutZeroed(objective, site_filters(run.task.net))

    def after_epoch(self, run: Run, state: TrainState, epoch: int) -> TrainState:
        if epoch > 0:
            return state
        params = with_zeroed(state.params, site_filters(run.task.net), self.chosen(run, state))
        return state.replace(params=replicated(params, run.task.devices))


@dataclasses.dataclass(frozen=True)
class _WithoutZeroed(Objective):
    """An objective of the network whose zeroed filters are behind gates of zero.

    So they have no gradients. Nor have they momentum or weight decay: they stay zero.
    """

    objective: Objective
    filters: tuple[Filters, ...]

    def init(self, key: jax.Array, module: Any) -> Any:
        return self.objective.init(key, module)

    def loss(
        self, network: Forward, extra: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> Outcome:
        network = network._replace(module=_Gated(network.module, self.filters))
        return self.objective.loss(network, extra, batch, key, step)


class _Gated(NamedTuple):
    """A module whose zeroed filters are behind gates of zero."""

    module: Any
    filters: tuple[Filters, ...]

    def apply(self, variables: Any, images: jax.Array, gates: Gates = None, **options: Any) -> Any:
        own = [alive(variables["params"], filters) for filters in self.filters]
        masks = [x.astype(jnp.float32)[None, None, None] for x in own]
        if gates is not None:
            masks = [gate * mask for gate, mask in zip(gates, masks, strict=True)]
        return self.module.apply(variables, images, masks, **options)


PLUGIN = GeometricMedian
