"""Time of FURs: a plain PyTorch loop over sites and draws over this project's estimates.

    pip install -e . torch
    python benchmarks/torch_furs.py                  # taskset -c 0 for one core

A ResNet-20 at 32x32 pixels, 18 sites, 5 draws. The loop evaluates the network once without dropout,
then with SpatialDropout at one site at a time, 18 x 5 times. Ours are dropout (fan-out, reduced
variance) and Fisher, on the same images. They take turns, and medians are given.
"""

import argparse
from collections.abc import Callable

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch_step import Site, as_tensors, in_turn, networks, noise

from furs_jax.data.batches import evaluation_batches
from furs_jax.furs.estimate import make_estimate
from furs_jax.machine.cores import usable_cores
from furs_jax.machine.devices import set_up
from furs_jax.run.tables import format_table

DRAWS, BATCH, RATE = 5, 64, 0.05


@torch.inference_mode()
def loop(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of every site, dropped, over the undropped one: shape (L,)."""

    def losses() -> torch.Tensor:
        parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
        return torch.cat(
            [functional.cross_entropy(model(x), y, reduction="none") for x, y in parts]
        )

    base, rises = losses(), []
    for site in (module for module in model.modules() if isinstance(module, Site)):
        site.rate = RATE
        drawn = torch.stack([losses() for _ in range(DRAWS)])
        site.rate = 0.0
        rises.append((drawn - base).mean())
    return torch.stack(rises)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    set_up(batch_sizes=[BATCH])
    torch.set_num_threads(usable_cores())
    net, model = networks("resnet20")
    model.eval()
    split = noise(net.image_shape, given.images)
    images, labels = as_tensors(split)
    variables = jax.jit(net.module(net.channels).init)(
        jax.random.key(0), np.zeros((1, *net.image_shape), np.float32)
    )
    batches = list(evaluation_batches(split, BATCH))
    statistics = {"mean": (0.5,) * 3, "std": (0.25,) * 3}

    def ours(method: str) -> Callable[[], object]:
        estimate = make_estimate(
            net,
            net.channels,
            method=method,
            draws=DRAWS,
            base_drop_rate=RATE,
            **statistics,
        )
        return lambda: estimate(variables, batches, 1, 0)

    found = loop(model, images, labels)
    if len(found) != len(net.channels):
        raise SystemExit(f"{len(found)} sites there, {len(net.channels)} of ours")
    seconds = in_turn(
        {
            "PyTorch loop": lambda: loop(model, images, labels),
            "dropout": ours("dropout"),
            "fisher": ours("fisher"),
        },
        given.turns,
    )
    rows = [
        (name, f"{taken:.2f}", f"{seconds['PyTorch loop'] / taken:.1f}")
        for name, taken in seconds.items()
    ]
    print(format_table((f"FURs, {len(found)} sites, {DRAWS} draws", "s", "PyTorch/it"), rows))
    print(f"{given.images} images, {usable_cores()} cores, {len(jax.devices())} JAX devices")


if __name__ == "__main__":
    main()
