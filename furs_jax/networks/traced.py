"""Your own network: any linen module with a `channels` field; its table of layers from its trace.

The module is called as module.apply(variables, images, gates=None, train=False), images of shape
(N, H, W, C), and returns float32 logits (N, num_classes). It passes the output of each searchable
layer through `furs_jax.gates.gate(x, gates, site)`, behind its BatchNorm and activation, where x
has channels[site] channels. With a gate of zero it gives the logits of the module without that
channel. Random numbers may be drawn where train is True. Sums and concatenations of gated values go
through `furs_jax.gates.match_streams`; a module that does without is measured by a pass for each
site.

Fields that are set where the module has them: `num_classes`, `padding`, `dtype` (of the
computation) and `axis_name` (of the devices, for nn.BatchNorm; needed where there is one).
"""

import dataclasses
import functools
import importlib
import inspect
import math
import pathlib
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import InvalidRngError

from furs_jax.errors import ConfigError
from furs_jax.gates import FanOut, SiteMarks
from furs_jax.networks.batch_norm import differing
from furs_jax.networks.counting import MacsModel, fit_macs
from furs_jax.networks.network import Network
from furs_jax.networks.removal import random_like, removal_fault
from furs_jax.networks.resources import Layer, Product, traced_products

_MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 32)  # of widths, tried in this order


class Trace(NamedTuple):
    """What one channel vector's computation consists of."""

    products: list[Product]
    variables: dict[str, Any]  # shapes, by collection
    logits: Any  # shapes of what the module returns
    met: list[tuple[int, tuple[int, ...]]]  # see `SiteMarks`


@dataclasses.dataclass(frozen=True)
class TracedNetwork(Network):
    """A network whose MACs and parameters are counted from its trace.

    Attributes:
      model: MACs as a formula of the channels; None where none was found, and each vector is
        traced.
      multiple: see `Network`.
    """

    model: MacsModel | None = None
    multiple: int = 1

    def module(self, channels: Sequence[int], **fields: Any) -> nn.Module:
        known = {key: value for key, value in fields.items() if hasattr(self.template, key)}
        return super().module(channels, **known)

    def scaled(self, width_multiplier: float) -> "TracedNetwork":
        """The network with int(width_multiplier * c) channels at its sites, as it can be built."""
        unit = self.multiple
        channels = [max(int(width_multiplier * c) // unit, 1) * unit for c in self.channels]
        return dataclasses.replace(self, template=self.module(channels))

    def macs(self, channels: Sequence[int]) -> int:
        if self.model is not None:
            return self.model(channels)
        unit = self.multiple
        below = [max(math.floor(c / unit), 1) * unit for c in channels]
        # Marginal MACs ask for widths between those that can be built, or below the least: on a
        # straight line.
        shares = [(c - b) / unit for c, b in zip(channels, below, strict=True)]
        above = [b + unit * (share != 0) for b, share in zip(below, shares, strict=True)]
        low = self._traced_macs(below)
        if below == above:
            return low
        return round(low + max(shares, key=abs) * (self._traced_macs(above) - low))

    def _traced_macs(self, channels: Sequence[int]) -> int:
        trace = _trace(self.module(channels), self.image_shape)
        return sum(product.macs for product in trace.products)

    def layers(self, channels: Sequence[int]) -> tuple[Layer, ...]:
        return _layers(_trace(self.module(channels), self.image_shape))

    def params(self, channels: Sequence[int]) -> int:
        variables = _trace(self.module(channels), self.image_shape).variables
        return sum(size for _, size in _sizes(variables.get("params", {})))

    @property
    def fans_out(self) -> bool:
        """Whether branches off one pass give what a pass for each site gives; tried once."""
        return _fans_out(self.template, self.image_shape)


def user_module(name: str, num_classes: int | None, padding: str) -> nn.Module:
    """The module that "my_package.my_module:MyNet" names: a class, a function or a module.

    Raises:
      ConfigError: there is none.
    """
    path, _, attribute = name.partition(":")
    try:
        module = getattr(importlib.import_module(path), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"network={name!r} can't be imported: {error}") from error
    if not isinstance(module, nn.Module) and callable(module):
        try:
            module = module()
        except TypeError as error:
            raise ConfigError(
                f"network={name!r} can't be built without arguments: {error}; give its fields "
                "defaults, `channels` too"
            ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"network={name!r} is no flax.linen module but a {type(module)}")
    fields = {"num_classes": num_classes, "padding": padding}
    known = {k: v for k, v in fields.items() if v is not None and hasattr(module, k)}
    return module.clone(**known) if known else module


@functools.lru_cache(maxsize=16)
def trace_network(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    name: str | None = None,
    num_classes: int | None = None,
) -> TracedNetwork:
    """A searchable network of a module of your own, checked by its trace and by a trial.

    Args:
      module: see the top of this file; with its initial channels.
      image_shape: (H, W, C) of the images that MACs are counted for.
      name: in reports; by default the module's class.
      num_classes: what the logits must have, by default the module's field of that name.

    Raises:
      ConfigError: a site has no gate, its width doesn't follow `channels`, a gate of zero is not
        the network without the channel, or the module can't be called as stated; the message names
        the site.
    """
    name = name or type(module).__name__
    channels = getattr(module, "channels", None)
    if not isinstance(channels, tuple) or not all(isinstance(c, int) for c in channels):
        raise ConfigError(f"{name} needs a field `channels`, a tuple of ints, one for each site")
    if not channels or min(channels) < 1:
        raise ConfigError(f"{name} needs at least one site, and each a channel: {channels=}")
    net = TracedNetwork(name, module, image_shape)
    _check(net, num_classes)
    multiple = _multiple(net)

    def factors(vector: Sequence[int]) -> list[tuple[int, ...]]:
        trace = _trace(net.module(vector), net.image_shape)
        return [product.factors for product in trace.products]

    model = fit_macs(factors, net.channels, multiple)
    net = dataclasses.replace(net, model=model, multiple=multiple)
    _check_removal(net)
    return net


def _check(net: TracedNetwork, num_classes: int | None) -> None:
    """Raises ConfigError where the module, at its own channels, is not as stated."""
    name, channels = net.name, net.channels
    trace = _trace_or_explain(net, channels, "can't be called as stated")
    _check_widths(net, channels, trace)
    missing = sorted(set(range(len(channels))) - {site for site, _ in trace.met})
    if missing:
        raise ConfigError(
            f"{name} applies no gate at site {missing[0]} (channels[{missing[0]}] = "
            f"{channels[missing[0]]}); pass that layer's output through furs_jax.gates.gate"
        )
    classes = num_classes or getattr(net.template, "num_classes", None)
    _check_logits(net, trace.logits, classes)
    unknown = sorted(trace.variables.keys() - {"params", "batch_stats"})
    if unknown:
        raise ConfigError(f"{name} keeps {unknown[0]!r}; only params and batch_stats are trained")
    _check_training(net, trace, classes)


def _check_logits(net: TracedNetwork, found: Any, classes: int | None, when: str = "") -> None:
    """Raises ConfigError where the module returns something else than logits."""
    if not isinstance(found, jax.ShapeDtypeStruct):
        count = len(jax.tree.leaves(found))
        raise ConfigError(
            f"{net.name} must return one array, float32 logits of shape (N, "
            f"{classes or 'classes'}), not a {type(found).__name__} of {count}{when}: leave out "
            "the others, such as the logits of auxiliary heads"
        )
    if found.dtype != jnp.float32 or found.ndim != 2 or classes not in (None, found.shape[1]):
        raise ConfigError(
            f"{net.name} must return float32 logits of shape (N, {classes or 'classes'}), not "
            f"{found.dtype} (N, {', '.join(map(str, found.shape[1:]))}){when}; a field "
            "`num_classes` is set to the number of classes"
        )


def _check_widths(net: TracedNetwork, channels: Sequence[int], trace: Trace) -> None:
    for site, shape in trace.met:
        if not 0 <= site < len(channels):
            raise ConfigError(
                f"{net.name} gates site {site}, but `channels` has {len(channels)} entries, for "
                f"sites 0 to {len(channels) - 1}"
            )
        if len(shape) != 4 or shape[0] != 1 or shape[-1] != channels[site]:
            raise ConfigError(
                f"at site {site} of {net.name} the gate meets an array of shape "
                f"(N, {', '.join(map(str, shape[1:]))}) where channels[{site}] = {channels[site]}; "
                f"it must be (N, H, W, {channels[site]}): let that layer's width follow `channels`"
            )


def _check_training(net: TracedNetwork, trace: Trace, classes: int | None) -> None:
    """Raises ConfigError where the module can't be trained, on several devices too."""
    if "batch_stats" in trace.variables and not hasattr(net.template, "axis_name"):
        raise ConfigError(
            f"{net.name} has BatchNorm but no field `axis_name`: add one, by default None, and "
            "pass it to nn.BatchNorm, so that the result doesn't depend on the number of devices"
        )
    module = net.module(net.channels, axis_name="batch")

    def apply(variables: Any, images: jax.Array, key: jax.Array) -> Any:
        return module.apply(variables, images, None, train=True, mutable=["batch_stats"], rngs=key)

    images = jax.ShapeDtypeStruct((2, *net.image_shape), jnp.float32)
    arguments, key = (trace.variables, images), jax.eval_shape(jax.random.key, 0)
    try:
        trace_training = jax.make_jaxpr(apply, axis_env=[("batch", 2)], return_shape=True)
        traced, (logits, updated) = trace_training(*arguments, key)
    except Exception as error:
        reason = _explained(error, net.template)
        raise ConfigError(f"{net.name} can't be trained: {reason}") from error
    _check_logits(net, logits, classes, " in training")
    # Every device has its own images and its own random numbers.
    alike = len(jax.tree.leaves(trace.variables))
    inputs = [place >= alike for place in range(len(traced.jaxpr.invars))]
    differs = differing(traced.jaxpr, inputs, "batch")[len(jax.tree.leaves(logits)) :]
    leaves = jax.tree_util.tree_leaves_with_path(updated)
    for (path, _), own in zip(leaves, differs, strict=True):
        if own:
            layer = "/".join(entry.key for entry in path[1:-1]) or net.name
            raise ConfigError(
                f"{net.name} has a field `axis_name`; pass it to every nn.BatchNorm: {layer} "
                "takes its statistics from the images of one device alone"
            )


def _check_removal(net: TracedNetwork) -> None:
    """Raises ConfigError where a gate of zero is not the network without the channel."""

    def shapes(channels: Sequence[int]) -> Any:
        reason = f"can't be built with channels={tuple(map(int, channels))}"
        return _trace_or_explain(net, channels, reason).variables

    try:
        with jax.default_matmul_precision("float32"):  # GPUs and TPUs would round too much
            fault = removal_fault(net, shapes)
    except ConfigError:
        raise
    except Exception as error:  # whatever the module raises
        reason = _explained(error, net.template)
        raise ConfigError(f"{net.name} has no gradients: {reason}") from error
    if fault:
        raise ConfigError(f"{net.name}: {fault}")


def _multiple(net: TracedNetwork) -> int:
    """The smallest number such that the module can be built with any multiples of it.

    Raises:
      ConfigError: there is none, or a width doesn't follow `channels`.
    """
    for unit in _MULTIPLES:
        first = max(net.channels) // unit + 1
        vector = [unit * (first + site) for site in range(len(net.channels))]
        if any(c % unit for c in net.channels):
            continue
        try:
            trace = _trace(net.module(vector), net.image_shape)
        except Exception:  # whatever the module raises
            continue
        _check_widths(net, vector, trace)
        return unit
    for site, width in enumerate(net.channels):
        wider = [c + (i == site) for i, c in enumerate(net.channels)]
        reason = f"can't be built with {width + 1} channels at site {site} in place of {width}"
        _trace_or_explain(net, wider, reason)
    raise ConfigError(f"{net.name} can't be built with channels={tuple(vector)}")


def _trace_or_explain(net: TracedNetwork, channels: Sequence[int], reason: str) -> Trace:
    try:
        return _trace(net.module(channels), net.image_shape)
    except InvalidRngError as error:
        raise ConfigError(
            f"{net.name} draws random numbers where train is False ({_first_line(error)}): give "
            "nn.Dropout deterministic=not train"
        ) from error
    except Exception as error:  # whatever the module raises
        raise ConfigError(
            f"{net.name} {reason} (module.apply(variables, images, gates=None, train=False), "
            f"images of {net.image_shape}): {_explained(error, net.template)}"
        ) from error


def _explained(error: Exception, module: nn.Module) -> str:
    """What went wrong, in which line of the module, and what helps where widths don't agree."""
    text, file = _first_line(error), inspect.getsourcefile(type(module))
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    if lines:
        place = f"{pathlib.Path(file).name}, line {lines[-1].lineno}: {lines[-1].line}"
        text = f"{text.rstrip('.')} ({place})"
    if "broadcast" in text:
        text += (
            ". Layers of different widths are summed by furs_jax.gates.fit_width (README, 'Your "
            "own network')"
        )
    return text


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@functools.lru_cache(maxsize=256)
def _trace(module: nn.Module, image_shape: tuple[int, int, int]) -> Trace:
    marks, shapes = SiteMarks([]), []
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)

    def apply(variables: Any, images: jax.Array) -> Any:
        outputs = module.apply(variables, images, marks, train=False)
        shapes.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), outputs))
        return outputs

    # Of apply, since a module may compute more where it is initialised.
    products = traced_products(apply, variables, image)
    return Trace(products, dict(variables), shapes[0], marks.met)


def _layers(trace: Trace) -> tuple[Layer, ...]:
    """The table of layers; what belongs to no product, as BatchNorms, comes in a last row."""
    rows, left = [], dict(_sizes(trace.variables.get("params", {})))
    for product in trace.products:
        name = product.scope.partition("/")[2] or product.scope
        own = sum(left.pop(key) for key in list(left) if key.rpartition("/")[0] == name)
        *above, width = (1, 1, *product.positions)
        row = Layer(
            name=name,
            kernel=product.kernel or 1,
            inputs=product.inputs,
            outputs=product.outputs,
            height=math.prod(above),
            width=width,
            site=product.site,
            groups=product.groups,
            dense=not product.kernel,
        )
        if row.macs != product.macs:
            row = row._replace(pairs=math.prod(product.pairs))
        rows.append(row._replace(extra=own - row.weights))
    rest = Layer("normalisation and others", 1, 0, 0, 0, 0, extra=sum(left.values()))
    return (*rows, rest)


def _sizes(params: Any) -> list[tuple[str, int]]:
    """(path, number of values) of each array."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [("/".join(entry.key for entry in path), math.prod(x.shape)) for path, x in leaves]


@functools.lru_cache(maxsize=64)
def _fans_out(module: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    # A sum that lacks `match_streams` fails by its shapes; a module that mixes the images of a
    # batch, or counts them, would be wrong silently. So the results are compared.
    rng, draws, count = np.random.default_rng(0), 2, 3

    def positive(*shape: int) -> np.ndarray:  # nothing zero or one, as a first scale can be
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)

    variables = random_like(_trace(module, image_shape).variables, rng)
    images = rng.normal(size=(count, *image_shape)).astype(np.float32)
    gates = [positive(draws, count, 1, 1, width) for width in module.channels]
    fan = FanOut(tuple(gates))

    @jax.jit
    def apply(*args: Any) -> jax.Array:
        # GPUs and TPUs would round more than what is compared.
        with jax.default_matmul_precision("float32"):
            return module.apply(*args)

    try:
        plain, branches = fan.split(apply(variables, images, fan))
    except Exception:  # whatever the module raises
        return False
    ones = [np.ones_like(value[0]) for value in gates]
    passes = [
        [apply(variables, images, [*ones[:site], draw, *ones[site + 1 :]]) for draw in value]
        for site, value in enumerate(gates)
    ]
    expected = np.concatenate([apply(variables, images, ones)[None], *map(np.stack, passes)])
    found = np.concatenate([plain[None], *branches])
    return bool(np.allclose(found, expected, rtol=1e-3, atol=1e-4 * np.std(expected)))
