"""What XLA sets aside for a forward pass on a CPU, beside what `activation_memory` counts.

    XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= python benchmarks/activation_memory.py NETWORK

prints a line for each network given: its name, megabytes by XLA (the images, and what it allocates
beside weights and results) and by the cost, and their ratio. The flag keeps XLA from handing parts
of the network to a library whose memory it does not count.
"""

import math
import os
import sys
from collections.abc import Sequence

import jax
import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from furs_jax.costs.activation_memory import ActivationMemory
from furs_jax.networks import get_network

BATCH_SIZE = 16


def main(names: Sequence[str]) -> None:
    for name in names:
        net = get_network(name)
        cost, module = ActivationMemory(net), net.module(net.channels)
        cost.batch_size = BATCH_SIZE
        images = jax.ShapeDtypeStruct((BATCH_SIZE, *net.image_shape), np.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        compiled = jax.jit(lambda v, x, m=module: m.apply(v, x)).lower(variables, images).compile()
        found = 4 * math.prod(images.shape) + compiled.memory_analysis().temp_size_in_bytes
        counted = cost.of(net.channels)
        print(f"{name}  {found / 1e6:.2f} MB  {counted / 1e6:.2f} MB  {found / counted:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
