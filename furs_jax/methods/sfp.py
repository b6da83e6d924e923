"""Soft filter pruning (He et al., IJCAI 2018): the smallest filters are zeroed after every epoch.

Algorithm 1, as its public code has it: before training and after every epoch the filters of the
smallest L2 norms are zeroed in every convolution, one share of all; in between they learn as all do
and may come back, with the momentum that they had. We differ:

- The share is solved for the budget, at every selection, on the network that is really left.
- Their code leaves BatchNorm as it is, which makes a constant of a zeroed filter: the pruned
  network is not the smaller one. After the last epoch we zero scale and bias, too. Until then they
  are the small `scale` and `bias`. With both at zero nothing would learn again: ReLU passes no
  gradient at zero (so that of their filters those never learn whose bias is not positive), nor do
  kernel and scale where both are zero. With the scale that was there BatchNorm makes a full channel
  of what a kernel of zeros learns in a few steps; to zero it once more ruins the network.
- A filter is all that makes a channel: of a projection shortcut, too.
"""

import numpy as np

from furs_jax.methods._filter_pruning import FilterPruning
from furs_jax.networks.filters import site_filters, with_zeroed
from furs_jax.run.context import Run
from furs_jax.training.step import TrainState, replicated


class SoftFilterPruning(FilterPruning):
    """Zeroes the filters of the smallest norms, again and again.

    Attributes:
      scale, bias: of BatchNorm behind a filter that is zeroed and shall learn.
    """

    scale, bias = 0.01, 1e-4

    def scores(self, weights: np.ndarray) -> np.ndarray:
        return np.linalg.norm(weights, axis=1)

    def after_epoch(self, run: Run, state: TrainState, epoch: int) -> TrainState:
        last = epoch == run.options.final.train.epochs
        filters, removed = site_filters(run.task.net), self.chosen(run, state)
        left = (0.0, 0.0) if last else (self.scale, self.bias)
        params = with_zeroed(state.params, filters, removed, *left)
        return state.replace(params=replicated(params, run.task.devices))


PLUGIN = SoftFilterPruning
