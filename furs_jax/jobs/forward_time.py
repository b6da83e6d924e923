"""How long networks take for an image on the device at hand, measured in turn."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from furs_jax.networks.network import Network
from furs_jax.networks.removal import random_like
from furs_jax.training.loading import net_shapes
from furs_jax.training.trainer import Task

TURNS = 9  # of each network, fewer where they would take more than `_MOST`
_FEWEST = 3
_LEAST = 0.05  # seconds of one timing, which calls the network as often as that takes
_MOST = 60.0  # seconds of all timings


def forward_times(
    task: Task, nets: Mapping[str, Network], batch_size: int | None = None
) -> dict[str, Any]:
    """Times the forward pass of evaluation, images on the device, on the first local device.

    Networks take turns, so that other work on the machine meets all alike and the ratio of two
    times of one turn says more than the times. Weights are random ones: kernels take as long for
    any. Compiling is left out.

    Args:
      task: of which the images' size and normalisation, the dtype and the batch size are taken.
      nets: name -> network at its own widths.
      batch_size: images of a pass; None: as many as evaluation gives a device.

    Returns:
      device; batch_size; seconds: name -> those of an image in each turn.
    """
    device = jax.local_devices()[0]
    batch = batch_size or max(1, task.eval_batch_size // len(task.devices))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, *task.net.image_shape), np.uint8)
    passes = {
        name: _forward(task, net, jax.device_put(images, device)) for name, net in nets.items()
    }
    calls = {name: _calls(call) for name, call in passes.items()}
    found: dict[str, list[float]] = {name: [] for name in nets}
    begun = time.perf_counter()
    for turn in range(TURNS):
        if turn >= _FEWEST and time.perf_counter() - begun > _MOST:
            break
        for name, call in passes.items():
            found[name].append(seconds_per_call(call, calls[name]) / batch)
    return {"device": device.device_kind, "batch_size": batch, "seconds": found}


def _forward(task: Task, net: Network, images: jax.Array) -> Callable[[], jax.Array]:
    variables = random_like(net_shapes(net, net.channels), np.random.default_rng(0))
    variables = jax.device_put(variables, images.devices().pop())
    apply = jax.jit(task._replace(net=net).apply(net.channels), static_argnums=2)
    return lambda: apply(variables, images, None)


def _calls(call: Callable[[], jax.Array]) -> int:
    """How many calls a timing needs; the first call compiles."""
    jax.block_until_ready(call())
    return 1 + int(_LEAST / seconds_per_call(call, 1))


def seconds_per_call(call: Callable[[], Any], calls: int) -> float:
    """Each call is waited for before the next."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / calls
