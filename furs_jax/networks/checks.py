"""Whether a module of one's own can be searched, by its trace and by trials; else what is wrong."""

import functools
import inspect
import pathlib
import traceback
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import InvalidRngError

from furs_jax.errors import ConfigError
from furs_jax.gates import FanOut
from furs_jax.networks.batch_norm import differing
from furs_jax.networks.removal import random_like, removal_fault
from furs_jax.networks.searchable import Searchable
from furs_jax.networks.trace import Trace, trace_module

_MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 32)  # of widths, tried in this order


def check_module(net: Searchable, num_classes: int | None) -> None:
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


def _check_logits(net: Searchable, found: Any, classes: int | None, when: str = "") -> None:
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


def _check_widths(net: Searchable, channels: Sequence[int], trace: Trace) -> None:
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


def _check_training(net: Searchable, trace: Trace, classes: int | None) -> None:
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


def check_removal(net: Searchable) -> None:
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


def least_multiple(net: Searchable) -> int:
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
            trace = trace_module(net.module(vector), net.image_shape)
        except Exception:  # whatever the module raises
            continue
        _check_widths(net, vector, trace)
        return unit
    for site, width in enumerate(net.channels):
        wider = [c + (i == site) for i, c in enumerate(net.channels)]
        reason = f"can't be built with {width + 1} channels at site {site} in place of {width}"
        _trace_or_explain(net, wider, reason)
    raise ConfigError(f"{net.name} can't be built with channels={tuple(vector)}")


def _trace_or_explain(net: Searchable, channels: Sequence[int], reason: str) -> Trace:
    try:
        return trace_module(net.module(channels), net.image_shape)
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


@functools.lru_cache(maxsize=64)
def fans_out(module: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    # A sum that lacks `match_streams` fails by its shapes; a module that mixes the images of a
    # batch, or counts them, would be wrong silently. So the results are compared.
    rng, draws, count = np.random.default_rng(0), 2, 3

    def positive(*shape: int) -> np.ndarray:  # nothing zero or one, as a first scale can be
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)

    variables = random_like(trace_module(module, image_shape).variables, rng)
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
