"""StableHLO: one program for CPU, CUDA and TPU, of any number of images; JAX alone runs it."""

import functools
import pathlib

import jax
from jax import export as jax_export

from furs_jax.errors import ConfigError
from furs_jax.export import Format, Record
from furs_jax.export._traced import symbolic_images
from furs_jax.jobs.exported import MODEL, PROGRAM
from furs_jax.jobs.predicting import TrainedNetwork

PLATFORMS = ("cpu", "cuda", "tpu")


class StableHloFormat(Format):
    runner = """
import sys, numpy, furs_jax
numpy.save(sys.argv[2], furs_jax.load(".").logits(numpy.load(sys.argv[1])))
"""
    usage = """
import pathlib
from jax import export

network = export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
logits = network.call(images)  # or furs_jax.load(".").predict(images)
"""

    def write(
        self, found: TrainedNetwork, folder: pathlib.Path, record: Record, fold: bool
    ) -> None:
        apply = jax.jit(functools.partial(found.apply, found.variables))
        try:
            exported = jax_export.export(apply, platforms=PLATFORMS)(symbolic_images(found))
        except Exception as error:  # whatever a module of one's own makes of it
            reason = str(error).strip().splitlines()[0][:200]
            raise ConfigError(
                f"{found.net.name} can't be exported for any number of images: {reason}"
            ) from error
        (folder / f"{MODEL}{PROGRAM}").write_bytes(exported.serialize())


PLUGIN = StableHloFormat
