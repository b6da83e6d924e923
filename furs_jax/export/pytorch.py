"""PyTorch: a module to read and train on, and its state; torch alone is needed to use them."""

import pathlib

import numpy as np

from furs_jax.export import Format, Record
from furs_jax.export._lower import lower
from furs_jax.export._simplify import simplify
from furs_jax.export._source import Source
from furs_jax.jobs.exported import ARRAYS, MODEL
from furs_jax.jobs.predicting import TrainedNetwork
from furs_jax.training.packed import pack


class PyTorchFormat(Format):
    packages = ("safetensors",)
    runs_with = ("torch", "numpy")
    folds = True
    runner = """
import sys, numpy, torch, model
network, images = model.load(), torch.from_numpy(numpy.load(sys.argv[1]))
with torch.no_grad():
    numpy.save(sys.argv[2], network(images).numpy())
"""
    usage = """
import model  # model.py; it reads the safetensors file beside it

network = model.load()
probabilities = network(images).softmax(dim=1)  # a uint8 tensor (N, H, W, C)
"""

    def write(
        self, found: TrainedNetwork, folder: pathlib.Path, record: Record, fold: bool
    ) -> None:
        source = Source(simplify(lower(found), fold))
        arrays = {name: np.ascontiguousarray(x) for name, x in source.state.items()}
        pack(folder / f"{MODEL}{ARRAYS}", arrays, {"format": "pytorch", **record})
        (folder / f"{MODEL}.py").write_text(
            _MODULE.format(
                network=ascii(found.net.name)[1:-1].replace('"', "'"),
                channels=" ".join(map(str, found.channels)),
                shape=", ".join(map(str, found.preprocessing.image_shape)),
                file=f"{MODEL}{ARRAYS}",
                classes="\n".join(f"    {name!a}," for name in found.classes),
                layers=source.layers(),
                forward=source.forward(),
            )
        )


_MODULE = '''"""{network} of these widths, as furs_jax has trained it: {channels}.

Written by `python -m furs_jax.export`. It needs torch alone:

    import model
    network = model.load()
    logits = network(images)  # uint8 (N, {shape}), of any N, to float32 (N, classes)

In train mode its BatchNorms learn, and it can be trained on.
"""

import json
import pathlib

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = (
{classes}
)


class Network(nn.Module):
    """uint8 images (N, {shape}) to float32 logits (N, classes); images are normalised here."""

    def __init__(self):
        super().__init__()
{layers}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
{forward}


def load(path=pathlib.Path(__file__).with_name("{file}")) -> Network:
    """The trained network, in eval mode, from the file beside this one."""
    network = Network()
    network.load_state_dict(read(path))
    return network.eval()


def read(path) -> dict:
    """The tensors of a safetensors file: a header of JSON behind its length, then their bytes."""
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, kinds = json.loads(data[8:start]), {{"F32": torch.float32, "I64": torch.int64}}
    tensors = {{}}
    for name, told in header.items():
        if name != "__metadata__":
            first, last = (start + offset for offset in told["data_offsets"])
            flat = torch.frombuffer(bytearray(data[first:last]), dtype=kinds[told["dtype"]])
            tensors[name] = flat.reshape(told["shape"])
    return tensors
'''

PLUGIN = PyTorchFormat
