"""Memory of a forward pass's activations: what a small device must have beside the weights."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import numpy as np

from furs_jax.costs import Cost
from furs_jax.networks.counting import MacsModel, fit_macs
from furs_jax.networks.lives import Lives, lives
from furs_jax.networks.searchable import Searchable
from furs_jax.networks.trace import mark_sites

_POWER = 4


class ActivationMemory(Cost):
    """Most bytes of arrays that are alive at once in a forward pass, for `batch_size` images.

    Counted are the images and all that follows from them, as 32-bit floats, from the trace and in
    its order, elementwise operations fused in place: see `furs_jax.networks.lives`. Not counted are
    weights, and what a convolution's algorithm takes for itself. A compiler may find a better
    order, or do worse.

    The peak is in few places, so most sites get wider at no cost: a marginal of zero, of which
    accuracy by memory would be infinite. `smoothed` marginals are those of the 4-norm over all
    steps in place of their maximum: a byte at a step that needs half as much as the peak counts an
    eighth. So sites far from the peak are nearly free, and grow: give a limit on MACs, too.
    """

    name, unit = "activation memory", "bytes"

    def of(self, channels: Sequence[int]) -> int:
        return round(float(self._steps(channels).max()))

    def marginals(self, channels: Sequence[int]) -> np.ndarray:
        return self._slopes(channels, np.inf)

    def smoothed(self, channels: Sequence[int]) -> np.ndarray:
        return self._slopes(channels, _POWER)

    def budget(self, given: float) -> int:
        return int(given)

    def _slopes(self, channels: Sequence[int], power: float) -> np.ndarray:
        """Central differences of a norm over the steps, one-sided at the narrowest width."""
        unit, found = self.net.multiple, []
        for site, width in enumerate(channels):
            ends = [max(int(width) - unit, unit), int(width) + unit]
            low, high = (
                np.linalg.norm(self._steps([*channels[:site], end, *channels[site + 1 :]]), power)
                for end in ends
            )
            found.append((high - low) / (ends[1] - ends[0]))
        return np.array(found)

    def _steps(self, channels: Sequence[int]) -> np.ndarray:
        """Bytes at each step."""
        vector, net = tuple(map(int, channels)), self.net
        # By the formula those of which many are asked for.
        formula = None if vector == net.channels else _formula(net)
        if formula is None:
            arrays, alive = _lives(net.module(vector), net.image_shape)
            return self.batch_size * (alive @ np.prod(_filled(arrays), axis=1))
        model, alive = formula
        return self.batch_size * (alive @ model.each(vector))


PLUGIN = ActivationMemory


@functools.lru_cache(maxsize=1024)
def _lives(module: nn.Module, image_shape: tuple[int, int, int]) -> Lives:
    return lives(mark_sites(module, image_shape).jaxpr)


@functools.lru_cache(maxsize=16)
def _formula(net: Searchable) -> tuple[MacsModel, np.ndarray] | None:
    """The arrays' bytes by the channels, and when they are alive; None where that differs."""
    _, alive = _lives(net.module(net.channels), net.image_shape)

    def arrays(channels: Sequence[int]) -> list[tuple[int, ...]]:
        found = _lives(net.module(channels), net.image_shape)
        if not np.array_equal(found.alive, alive):
            raise ValueError("other arrays are alive at other times")
        return list(found.arrays)

    model = fit_macs(arrays, net.channels, net.multiple)
    return None if model is None else (model, alive)


def _filled(arrays: Sequence[tuple[int, ...]]) -> np.ndarray:
    longest = max(map(len, arrays))
    return np.array([(*own, *[1] * (longest - len(own))) for own in arrays], float)
