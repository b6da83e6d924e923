"""MACs and parameters: of a table of layers, and counted from the computation itself.

Counted are the multiply-accumulates of convolutions and dense layers and nothing else, for one
image, padding included: what the papers call FLOPs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Layer(NamedTuple):
    """One convolution (with its BatchNorm) or dense layer of a network, as built."""

    name: str
    kernel: int  # 1 for a dense layer
    inputs: int  # input channels
    outputs: int  # output channels
    height: int  # of the output; 1 for a dense layer
    width: int
    site: int | None = None  # the site whose width this layer's outputs are
    groups: int = 1
    dense: bool = False
    # Trained values beside the weights. None: a BatchNorm of the outputs, or a dense layer's bias.
    extra: int | None = None

    @property
    def weights(self) -> int:
        return self.kernel**2 * (self.inputs // self.groups) * self.outputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.weights * self.height * self.width

    @property
    def params(self) -> int:
        """Trained values."""
        usual = (1 if self.dense else 2) * self.outputs
        return self.weights + (usual if self.extra is None else self.extra)


def marginal_macs(macs: Callable[[Sequence[int]], int], channels: Sequence[int]) -> np.ndarray:
    """MACs per channel of each site, dF_l = [F(c + e_l) - F(c - e_l)] / 2, float64, shape (L,).

    Chen et al., CVPR 2020, section 3.2, by central differences.
    """
    channels = np.asarray(channels)
    steps = np.eye(len(channels), dtype=int)
    return np.array([(macs(channels + e) - macs(channels - e)) / 2 for e in steps])


def traced_macs(fn: Callable[..., Any], *args: Any) -> int:
    """MACs of the convolutions and matrix products in the traced computation of fn(*args).

    Args:
      fn: a function that JAX can trace.
      *args: its arguments, arrays or `jax.ShapeDtypeStruct`s. Give one image: nothing is divided.
    """
    return _jaxpr_macs(jax.make_jaxpr(fn)(*args).jaxpr)


def _jaxpr_macs(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            total += _conv_macs(equation)
        elif equation.primitive.name == "dot_general":
            total += _dot_macs(equation)
        total += sum(_jaxpr_macs(inner) for inner in _inner_jaxprs(equation))
    return total


def _conv_macs(equation: Any) -> int:
    # The kernel's input dimension is already divided by the groups.
    kernel = equation.invars[1].aval.shape
    out_dimension = equation.params["dimension_numbers"].rhs_spec[0]
    outputs = math.prod(equation.outvars[0].aval.shape)
    return outputs * math.prod(kernel) // kernel[out_dimension]


def _dot_macs(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _inner_jaxprs(equation: Any) -> list[Any]:
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns"))
    return [getattr(v, "jaxpr", v) for v in values if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
