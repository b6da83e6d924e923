"""A method that prunes while it trains: the first site ends without two of its channels."""

import jax
import numpy as np

from furs_jax.methods import Finished, Method
from furs_jax.networks.axes import site_axes


class Pruned(Method):
    def after_epoch(self, run, state, epoch):
        places = {place.path for place in site_axes(run.task.net).places[0]}

        def silence(path, x):
            if jax.tree_util.keystr(path) in places and path[-1].key in ("scale", "bias"):
                return np.where(np.arange(len(x)) < 2, 0, x).astype(x.dtype)
            return x

        return state.replace(params=jax.tree_util.tree_map_with_path(silence, state.params))

    def finish(self, run, channels, state):
        first, *others = channels
        kept = site_axes(run.task.net, channels).kept([range(2), *[()] * len(others)])

        def cut(path, x):
            indices = [kept[jax.tree_util.keystr(path[1:]), axis] for axis in range(x.ndim)]
            return np.asarray(x)[np.ix_(*indices)]

        variables = jax.tree_util.tree_map_with_path(cut, state.variables)
        return Finished(run.task.net.of((first - 2, *others)), variables)
