"""Every network in every format, verified: python benchmarks/exports.py [--python=PATH] [NAME...].

Prints docs/EXPORT.md's table: the largest difference between Flax's logits and those of what was
written, loaded in a process of its own, on 8 crops of scikit-learn's two photographs. Weights and
BatchNorm statistics are random, the head's scaled so that the largest logit is 10, as of a trained
network. The last column is by how much Flax's own logits move where every weight is changed by half
of its last bit. --python names a Python that has torch, where this one has not.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from sklearn.datasets import load_sample_images

from furs_jax.export._written import Wanted, write_export
from furs_jax.jobs.predicting import Preprocessing, TrainedNetwork
from furs_jax.networks import get_network
from furs_jax.networks.network import Network

FORMATS = {  # title -> format, whether BatchNorms are folded
    "safetensors": ("safetensors", False),
    "StableHLO": ("stablehlo", False),
    "ONNX": ("onnx", False),
    "ONNX, folded": ("onnx", True),
    "PyTorch": ("pytorch", False),
    "PyTorch, folded": ("pytorch", True),
}
IMAGES, LARGEST = 8, 10.0
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def low_cost(net: Network) -> Network:
    """With a low-cost layer at every site, as method=lccl trains it."""
    return net.of(net.channels, skips=tuple(range(len(net.channels))))


def pruned(net: Network) -> Network:
    """With three quarters of each site's channels left, at random places, as sfp and fpgm prune."""
    rng, places = np.random.default_rng(0), []
    for width in net.channels:
        left = rng.choice(width, 3 * width // 4, replace=False)
        places.append(tuple(sorted(map(int, left), reverse=True)))
    return net.of(tuple(map(len, places)), places=tuple(places))


NETWORKS = {
    "resnet20_cifar": None,
    "resnet20_cifar, low-cost layers": low_cost,
    "resnet20_cifar, pruned": pruned,
    "plain20_cifar": None,
    "densenet40_cifar": None,
    "pyramidnet20_cifar": None,
    "mnasnet_cifar": None,
    "resnet18": None,
    "mnasnet_a1": None,
    "efficientnet_b0": None,
}


def crops(size: int) -> np.ndarray:
    """Random squares of the photographs, uint8, shape (IMAGES, size, size, 3)."""
    rng, found = np.random.default_rng(0), []
    for number in range(IMAGES):
        photo = load_sample_images().images[number % 2]
        top, left = (rng.integers(0, side - size) for side in photo.shape[:2])
        found.append(photo[top : top + size, left : left + size])
    return np.stack(found)


def network(title: str) -> TrainedNetwork:
    """As if trained."""
    net = get_network(title.partition(",")[0])
    change = NETWORKS[title]
    net = change(net) if change else net
    image = jax.ShapeDtypeStruct((1, *net.image_shape), np.float32)
    shapes = jax.eval_shape(net.module(net.channels).init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def draw(x: jax.ShapeDtypeStruct) -> np.ndarray:
        if x.ndim == 1:  # positive, as variances must be
            return (0.5 + rng.random(x.shape)).astype(np.float32)
        return rng.normal(0, np.sqrt(1.5 / np.prod(x.shape[:-1])), x.shape).astype(np.float32)

    variables = jax.tree.map(draw, shapes)
    classes = tuple(map(str, range(net.template.num_classes)))
    preprocessing = Preprocessing(_MEAN, _STD, net.image_shape)
    found = TrainedNetwork(net, net.channels, variables, classes, preprocessing, "float32")
    factor = LARGEST / np.abs(found.logits(crops(net.image_shape[0]))).max()
    head = variables["params"]["head"]
    head.update({name: np.float32(x * factor) for name, x in head.items()})
    return TrainedNetwork(net, net.channels, variables, classes, preprocessing, "float32")


def last_bit(found: TrainedNetwork, images: np.ndarray) -> float:
    """By how much logits move at most when each weight is changed by a half of its last bit."""
    rng = np.random.default_rng(1)
    move = lambda x: np.float32(x * (1 + rng.uniform(-(2**-24), 2**-24, x.shape)))  # noqa: E731
    moved = dataclasses.replace(found, variables=jax.tree.map(move, found.variables))
    return float(np.abs(moved.logits(images) - found.logits(images)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of networks; all")
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    columns = ("network", *FORMATS, "last bit")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for title in options.names or NETWORKS:
        found, cells = network(title), []
        images = crops(found.preprocessing.image_shape[0])
        for name, fold in FORMATS.values():
            python = options.python if name == "pytorch" else sys.executable
            with tempfile.TemporaryDirectory() as place:
                wanted = Wanted(name, pathlib.Path(place, "export"), python, fold)
                cells.append(f"{write_export(wanted, found, images, {}).largest_difference:.1e}")
        cells.append(f"{last_bit(found, images):.1e}")
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
