"""safetensors: the arrays, with all that `furs_jax.load` needs as the file's metadata."""

import pathlib

from furs_jax.export import Format, Record
from furs_jax.jobs.exported import ARRAYS, MODEL
from furs_jax.jobs.predicting import TrainedNetwork
from furs_jax.training.packed import pack


class SafetensorsFormat(Format):
    packages = ("safetensors",)
    runner = """
import sys, numpy, furs_jax
found = furs_jax.load("model.safetensors", *sys.argv[3:])
numpy.save(sys.argv[2], found.logits(numpy.load(sys.argv[1])))
"""
    usage = """
import furs_jax

found = furs_jax.load("model.safetensors")
probabilities = found.predict(images)
"""

    def write(
        self, found: TrainedNetwork, folder: pathlib.Path, record: Record, fold: bool
    ) -> None:
        pack(folder / f"{MODEL}{ARRAYS}", found.variables, record)


PLUGIN = SafetensorsFormat
