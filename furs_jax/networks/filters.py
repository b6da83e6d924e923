"""Filters: the weights that make a site's channels, zeroed in place or taken out for good.

A zeroed filter, with its normalisation's scale and bias, is a channel of zeros: so is one behind a
gate of zero, and the network that `shrunk` cuts out computes the same.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax.errors import ConfigError
from furs_jax.gates import site_places
from furs_jax.networks.axes import Axis, Place, silent_without, site_axes
from furs_jax.networks.network import Network, TracedNetwork
from furs_jax.networks.removal import random_like
from furs_jax.networks.trace import trace_module

Indices = Sequence[np.ndarray]  # of each site some of its channels


class Filters(NamedTuple):
    """Where a site's filters are, among a network's parameters.

    Attributes:
      kernels: of the convolutions that make the channels; a projection shortcut has its part, a
        depthwise convolution behind has none.
      scales, biases: of their normalisations, and biases of the convolutions.
    """

    kernels: tuple[Place, ...]
    scales: tuple[Place, ...]
    biases: tuple[Place, ...]


@functools.lru_cache(maxsize=4)
def site_filters(net: Network) -> tuple[Filters, ...]:
    """The filters of each site.

    Raises:
      ConfigError: a site's filters can't be zeroed so that its channels are zero, or can't be taken
        out at any place.
    """
    axes, shapes = site_axes(net), _flat(_shapes(net)["params"])
    found = tuple(_filters(own, shapes) for own in axes.places)
    arrays = [[((p.path, p.axis), _index(p)) for part in own for p in part] for own in found]
    silent = silent_without(net, arrays)
    for site, own in enumerate(found):
        if not own.kernels or not silent[site]:
            way_on = (
                "; give padding=max" if getattr(net.template, "padding", "max") != "max" else ""
            )
            raise ConfigError(
                f"the filters of {net.name} can't be pruned: with those of site {site} at zero its "
                f"channels are not, as where a gate covers a residual sum{way_on}"
            )
        if site not in axes.free and not hasattr(net.template, "places"):
            raise ConfigError(
                f"the filters of {net.name} can't be pruned: a residual sum joins site {site}, so "
                "its module needs the field `places` (furs_jax/networks/network.py)"
            )
    if isinstance(net, TracedNetwork):
        _check_cut(net, found)
    return found


def _check_cut(net: TracedNetwork, filters: Sequence[Filters]) -> None:
    """Raises ConfigError where half of a module's filters, zeroed, are not the network without."""
    rng = np.random.default_rng(0)
    removed = [rng.permutation(c)[: c // 2 // net.multiple * net.multiple] for c in net.channels]
    variables = dict(random_like(_shapes(net), rng))
    variables["params"] = with_zeroed(variables["params"], filters, removed)
    small, cut = pruned_network(net, removed), pruned_variables(net, removed, variables)
    images = rng.normal(size=(2, *net.image_shape)).astype(np.float32)
    fault = f"with channels taken out at any place {net.name} is not the network with them at zero"
    try:
        masked, left = (
            jax.jit(one.module(one.channels, dtype=jnp.float32).apply)(own, images)
            for one, own in ((net, variables), (small, cut))
        )
        same = np.allclose(masked, left, rtol=1e-3, atol=1e-4 * np.std(masked))
        macs = sum(p.macs for p in trace_module(small.template, net.image_shape).products)
        same = same and small.macs(small.channels) == macs
    except Exception as error:  # whatever the module raises
        raise ConfigError(f"{fault}: {str(error).splitlines()[0]}") from error
    if not same:
        raise ConfigError(f"{fault}: see `places` in furs_jax/networks/network.py")


def _shapes(net: Network) -> Any:
    image = jax.ShapeDtypeStruct((1, *net.image_shape), jnp.float32)
    return jax.eval_shape(net.module(net.channels).init, jax.random.key(0), image)


def _filters(places: Sequence[Place], shapes: dict[str, Any]) -> Filters:
    def named(name: str) -> list[Place]:
        ending = f"['{name}']"
        return [p for p in places if p.path.endswith(ending) and p.path in shapes]

    def beside(others: Sequence[Place]) -> set[str]:
        return {p.path.rpartition("[")[0] for p in others}

    made = [p for p in named("kernel") if p.axis == shapes[p.path].ndim - 1]
    # Of dense layers only where there is no other, since squeeze and excitation has some.
    convolutions = [p for p in made if shapes[p.path].ndim > 2] or made
    # What has one input may be depthwise, and filters what another one made.
    kernels = [p for p in convolutions if shapes[p.path].shape[-2] > 1] or convolutions
    scales = named("scale")
    own = beside(scales) | beside(convolutions)
    biases = [p for p in named("bias") if p.path.rpartition("[")[0] in own]
    return Filters(tuple(kernels), tuple(scales), tuple(biases))


def filter_weights(params: Any, filters: Filters) -> np.ndarray:
    """The weights of each of a site's filters, float64, shape (C, weights)."""
    flat = _flat(params)
    parts = []
    for place in filters.kernels:
        kernel = np.asarray(flat[place.path], np.float64)
        rows = np.moveaxis(kernel, place.axis, 0)[_index(place)]
        parts.append(rows.reshape(len(rows), -1))
    return np.concatenate(parts, axis=1)


def alive(params: Any, filters: Filters) -> Any:
    """Whether anything of each of a site's filters is not zero, bool, shape (C,); numpy or jax."""
    flat, found = _flat(params), False
    for place in (p for part in filters for p in part):
        x = flat[place.path]
        others = tuple(axis for axis in range(x.ndim) if axis != place.axis)
        found = (x != 0).any(axis=others)[_index(place)] | found
    return found


def with_zeroed(
    params: Any,
    filters: Sequence[Filters],
    removed: Indices,
    scale: float = 0.0,
    bias: float = 0.0,
) -> Any:
    """The parameters with the kernels of these filters at zero.

    Args:
      params: of the network.
      filters: of all sites.
      removed: of each site the channels whose filters are zeroed.
      scale, bias: what their normalisations' are set to.
    """
    values: dict[str, list[tuple[Place, np.ndarray, float]]] = {}
    for own, channels in zip(filters, removed, strict=True):
        for places, value in zip(own, (0.0, scale, bias), strict=True):
            for place in places if len(channels) else ():
                index = _index(place)[np.asarray(channels, int)]
                values.setdefault(place.path, []).append((place, index, value))

    def zero(path: Any, x: Any) -> Any:
        for place, index, value in values.get(jax.tree_util.keystr(path), ()):
            x = np.array(x)
            np.moveaxis(x, place.axis, 0)[index] = value
        return x

    return jax.tree_util.tree_map_with_path(zero, params)


def pruned_network(net: Network, removed: Indices) -> Network:
    """The network without some channels of its sites, wherever they lie.

    A module with the field `places` is told where those that are left have been.
    """
    gone = [set(map(int, channels)) for channels in removed]
    if not any(gone):
        return net
    before = site_places(net.channels, getattr(net.template, "places", None))
    places = tuple(
        tuple(place for channel, place in enumerate(own) if channel not in out)
        for own, out in zip(before, gone, strict=True)
    )
    fields = {"places": places} if hasattr(net.template, "places") else {}
    return net.of(tuple(map(len, places)), **fields)


def pruned_variables(net: Network, removed: Indices, variables: Any) -> Any:
    """The variables (numpy) of `pruned_network`, of those of the network; nothing is computed."""
    kept = site_axes(net).kept(removed)

    def cut(path: Any, x: Any) -> np.ndarray:
        x = np.asarray(x)
        return x[_block(kept, path, x.ndim)]

    return jax.tree_util.tree_map_with_path(cut, variables)


def placed_variables(net: Network, removed: Indices, variables: Any) -> Any:
    """The network's variables (numpy) with those of `pruned_network` in their places, else zeros.

    Raises:
      ValueError: an array is not as large as what is left of the network's.
    """
    axes = site_axes(net)
    kept = axes.kept(removed)

    def place(path: Any, x: Any) -> np.ndarray:
        x, name = np.asarray(x), jax.tree_util.keystr(path[1:])
        left = tuple(len(kept[name, axis]) for axis in range(x.ndim))
        if left != x.shape:
            raise ValueError(f"{name} has the shape {x.shape}, and {left} is left of the wider one")
        whole = np.zeros([len(axes.owners[name, axis]) for axis in range(x.ndim)], x.dtype)
        whole[_block(kept, path, x.ndim)] = x
        return whole

    return jax.tree_util.tree_map_with_path(place, variables)


def _block(kept: dict[Axis, np.ndarray], path: Any, ndim: int) -> Any:
    """What is kept of an array, whose path begins with its collection, as an index of it."""
    name = jax.tree_util.keystr(path[1:])
    return np.ix_(*(kept[name, axis] for axis in range(ndim))) if ndim else ()


def _flat(params: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)
    }


def _index(place: Place) -> np.ndarray:
    """For each channel of the site its index on the axis."""
    index = np.flatnonzero(place.channels >= 0)
    return index[np.argsort(place.channels[index])]
