"""Whether a gate of zero is a removed channel: tried out, with random weights.

With a channel's gate at zero, what the network without the channel lacks must not count any more:
the logits' gradient there is zero. What is left, put into the narrower network, must give the same
logits. Where a grouped convolution reads the channel, the narrower network has other groups and
can't be given the weights; then only the numbers of weights that count are compared.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.networks.searchable import Searchable

Shapes = Callable[[Sequence[int]], Any]  # channels -> shapes of the variables
Places = Callable[[int], np.ndarray]  # a site's width -> the channels that are removed


class _Trial(NamedTuple):
    """What one mask of the wide network's channels leaves."""

    logits: np.ndarray  # of the first draw
    counts: Any  # like the variables: which entries have a gradient in any draw


class _Cut(NamedTuple):
    """The narrower network's variables, out of the wide one's."""

    variables: Any = None  # None where groups change
    left: str | None = None  # an array that still counts and is to be narrower
    sure: bool = True  # False where what never counted had to be chosen from


def removal_fault(net: Searchable, shapes: Shapes) -> str | None:
    """What is wrong, with its site, where a gate of zero is not the network without the channel."""
    unit = net.multiple
    channels = tuple(max(c, 2 * unit) for c in net.channels)  # a site must not lose all
    if fault := _fault(net, shapes, channels):
        return fault
    # Of two sides of a sum the wider one may have been the right one by chance.
    equal = (min(channels),) * len(channels)
    fault = None if channels == equal else _fault(net, shapes, equal)
    return fault and f"with {equal[0]} channels at every site {fault}"


def _fault(net: Searchable, shapes: Shapes, channels: tuple[int, ...]) -> str | None:
    trials, sites, unit = _Trials(net, shapes, channels), range(len(channels)), net.multiple
    places: list[Places] = [
        lambda width: np.arange(unit),  # where sums align the last channels
        lambda width: np.arange(width - unit, width),  # or the first
        lambda width: np.arange(unit) * (width // unit),  # as many in each group
    ]
    for removed in places:
        cuts = [trials.cut([site], removed) for site in sites]
        if any(found.left for found in cuts):
            continue
        whole = [site for site in sites if cuts[site].variables is not None]
        if not whole:
            return None
        found = trials.cut(whole, removed)
        if found.variables is not None and not trials.differs(found, whole, removed):
            return None
    for site in sites:
        faults = [_fault_of(trials, site, removed) for removed in places]
        if all(faults):
            return faults[0]
    return None


# Of BatchNorm's vectors: what it makes of zeros is slightly positive, so no ReLU behind it hides
# them, and its outputs have either sign.
_RANGES = {"bias": (0.05, 0.15), "mean": (-0.15, -0.05)}


def random_like(shapes: Any, rng: np.random.Generator) -> Any:
    """Random variables whose layers keep what they are given at its size."""

    def draw(path: Any, x: jax.ShapeDtypeStruct) -> np.ndarray:
        if math.prod(x.shape[:-1]) == 1:  # a vector
            low, high = _RANGES.get(path[-1].key, (0.5, 1.5))
            return rng.uniform(low, high, x.shape).astype(x.dtype)
        value = rng.normal(0, math.sqrt(2 / math.prod(x.shape[:-1])), x.shape)
        # Inputs behind a ReLU are positive; what they have in common must not drown the rest.
        return (value - value.mean(axis=tuple(range(value.ndim - 1)))).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class _Trials:
    """Masks of a network's channels, tried out with a few draws of weights and images.

    Of several draws, because a ReLU may hide a channel in one.
    """

    def __init__(self, net: Searchable, shapes: Shapes, channels: tuple[int, ...]):
        rng = np.random.default_rng(0)
        self._net, self._shapes, self._channels = net, shapes, channels
        large = math.prod(net.image_shape[:2]) > 64**2
        draws, images = (2, 1) if large else (8, 4)
        like = shapes(self._channels)
        self._draws = [
            (random_like(like, rng), rng.normal(size=(images, *net.image_shape)).astype(np.float32))
            for _ in range(draws)
        ]
        self._module = net.module(self._channels, dtype=jnp.float32)
        logits = jax.eval_shape(self._module.apply, *self._draws[0])
        self._weights = rng.normal(size=logits.shape).astype(np.float32)
        self._gradients = _quick_jit(self._counting)
        self._unmasked = self._masked([], np.arange)

    def cut(self, sites: Sequence[int], removed: Places) -> _Cut:
        """The network without some channels of some sites."""
        counts = self._masked(sites, removed).counts
        narrow = self._shapes(self._narrower(sites))
        return _cut(self._draws[0][0], narrow, self._unmasked.counts, counts)

    def differs(self, found: _Cut, sites: Sequence[int], removed: Places) -> bool:
        """Whether the network without the channels gives other logits than their gates at zero."""
        module = self._net.module(self._narrower(sites), dtype=jnp.float32)
        shrunk = _quick_jit(module.apply)(found.variables, self._draws[0][1])
        masked = self._masked(sites, removed).logits
        if np.allclose(shrunk, masked, rtol=1e-3, atol=1e-4 * np.std(masked)):
            return False
        # Computed in few bits, logits move as much by a change of the images in the last one.
        moved = self._masked(sites, removed, np.float32(1 + 1e-6)).logits
        return bool(np.max(np.abs(shrunk - masked)) > 10 * np.max(np.abs(moved - masked)))

    def _masked(self, sites: Sequence[int], removed: Places, contrast: float = 1.0) -> _Trial:
        gates = [np.ones((1, 1, 1, width), np.float32) for width in self._channels]
        for site in sites:
            gates[site][..., removed(gates[site].shape[-1])] = 0
        found = [
            self._gradients(variables, gates, images * contrast, self._weights)
            for variables, images in self._draws
        ]
        counts = jax.tree.map(lambda *each: np.any(each, axis=0), *[counts for _, counts in found])
        return _Trial(np.asarray(found[0][0]), counts)

    def _counting(self, variables: Any, gates: Any, images: jax.Array, weights: jax.Array) -> Any:
        def weighted(variables: Any) -> Any:
            logits = self._module.apply(variables, images, gates)
            return jnp.sum(logits * weights), logits

        gradients, logits = jax.grad(weighted, has_aux=True, allow_int=True)(variables)
        return logits, jax.tree.map(_nonzero, gradients)

    def _narrower(self, sites: Sequence[int]) -> list[int]:
        unit = self._net.multiple
        return [c - unit * (site in sites) for site, c in enumerate(self._channels)]


def _fault_of(trials: _Trials, site: int, removed: Places) -> str | None:
    found = trials.cut([site], removed)
    if found.left:
        return (
            f"a gate of zero at site {site} is not the network without that channel: {found.left} "
            "goes on counting, and would be smaller. Where a sum joins the site with an array that "
            "its gate does not reach, gate the sum; the gate stands behind BatchNorm and "
            "activation; other layers' widths don't follow the site's (README, 'Your own network')"
        )
    if found.variables is not None and trials.differs(found, [site], removed) and found.sure:
        return (
            f"a gate of zero at site {site} gives other logits than the network without that "
            "channel. Behind a gate nothing may depend on the number of channels, as a mean over "
            "them does, and sums must align channels (README, 'Your own network')"
        )
    return None


def _nonzero(gradient: jax.Array) -> jax.Array:
    whole = gradient.dtype == jax.dtypes.float0  # what counts steps, and has no gradient
    return jnp.zeros(gradient.shape, bool) if whole else gradient != 0


def _quick_jit(fn: Callable) -> Callable:
    """Compiled with little optimisation, since it is called a few times."""
    cpu = jax.default_backend() == "cpu"
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0} if cpu else None)


def _cut(variables: Any, narrow: Any, before: Any, after: Any) -> _Cut:
    """Takes out what counted before and not after."""
    if jax.tree.structure(variables) != jax.tree.structure(narrow):
        return _Cut(left="an array that no longer exists")
    leaves, groups, sure = [], False, True
    paths = jax.tree_util.tree_leaves_with_path(variables)
    rest = (jax.tree.leaves(tree) for tree in (narrow, before, after))
    for (path, x), y, counted, counts in zip(paths, *rest, strict=True):
        kept = _kept(y.shape, counted, counts) if len(x.shape) == len(y.shape) else None
        if kept is not None:
            leaves.append(x[np.ix_(*kept.indices)])
            sure = sure and kept.sure
        # Alike in all groups, about as many count as the narrower array has.
        elif counts.sum() / counted.sum() < (1 + math.prod(y.shape) / counted.size) / 2:
            groups = True
        else:
            return _Cut(left="/".join(entry.key for entry in path[1:]))
    if groups:
        return _Cut()
    return _Cut(jax.tree.unflatten(jax.tree.structure(variables), leaves), sure=sure)


class _Kept(NamedTuple):
    indices: list[np.ndarray]  # of each axis
    sure: bool


def _kept(shape: Sequence[int], counted: np.ndarray, counts: np.ndarray) -> _Kept | None:
    """What is left of an array for `shape`; None where more than that still counts."""
    kept, sure = [], True
    for axis, (old, new) in enumerate(zip(counted.shape, shape, strict=True)):
        others = tuple(i for i in range(counted.ndim) if i != axis)
        silent, was_silent = ~counts.any(axis=others), ~counted.any(axis=others)
        silenced, never = np.flatnonzero(silent & ~was_silent), np.flatnonzero(was_silent)
        order = [*silenced, *never]  # never: as what is read of a padding
        if not old - len(order) <= new <= old:
            return None
        sure = sure and new in (old, old - len(silenced))
        kept.append(np.delete(np.arange(old), order[: old - new]))
    return _Kept(kept, sure)
