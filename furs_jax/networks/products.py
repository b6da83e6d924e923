"""The convolutions and matrix products of a traced computation, and their MACs.

Counted are the multiply-accumulates of convolutions and dense layers and nothing else, for one
image: what the papers call FLOPs. Zeros of the padding are counted; zeros that a transposed
convolution puts between its inputs (lhs dilation) are not.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from furs_jax.errors import ConfigError
from furs_jax.gates import SITE_MARK
from furs_jax.networks.jaxprs import inner_jaxprs


class Product(NamedTuple):
    """A convolution or matrix product in a traced computation."""

    scope: str  # of names, as flax's modules give: "MyNet/block1/Conv_0"
    site: int | None  # whose gate stands behind it, see `SiteMarks`
    kernel: tuple[int, ...]  # () for a matrix product
    inputs: int
    outputs: int
    positions: tuple[int, ...]  # the output's other dimensions
    groups: int
    # Whole numbers whose product is the pairs of an output position and a kernel's tap that are
    # multiplied: all, but for the zeros between a transposed convolution's inputs.
    pairs: tuple[int, ...]

    @property
    def factors(self) -> tuple[int, ...]:
        """Whole numbers whose product is the MACs."""
        return (*self.pairs, self.inputs // self.groups, self.outputs)

    @property
    def macs(self) -> int:
        return math.prod(self.factors)

    def repeated(self, times: int) -> "Product":
        """As a loop computes it."""
        return self._replace(positions=(times, *self.positions), pairs=(times, *self.pairs))


def traced_macs(fn: Callable[..., Any], *args: Any) -> int:
    """MACs of the convolutions and matrix products in the traced computation of fn(*args).

    Of the branches of a condition the one with the most MACs counts.

    Args:
      fn: a function that JAX can trace.
      *args: its arguments, arrays or `jax.ShapeDtypeStruct`s. Give one image: nothing is divided.

    Raises:
      ConfigError: a loop of unknown length holds a convolution or a matrix product.
    """
    return sum(product.macs for product in products_of(jax.make_jaxpr(fn)(*args).jaxpr))


def products_of(jaxpr: Any) -> list[Product]:
    """The convolutions and matrix products of a computation, in order; see `traced_macs`."""
    products: list[Product] = []
    _collect(jaxpr, [None] * len(jaxpr.invars), products)
    return products


def _collect(jaxpr: Any, origins: list[int | None], products: list[Product]) -> list[int | None]:
    """Appends the products of jaxpr; the last product behind each of its outputs.

    `origins` says the same of its inputs. A mark gives its site to the product behind it.
    """
    behind = dict(zip(jaxpr.invars, origins, strict=True))

    def latest(variables: Iterable[Any]) -> int | None:
        known = [behind.get(v) for v in variables if not hasattr(v, "val")]
        return max((origin for origin in known if origin is not None), default=None)

    for equation in jaxpr.eqns:
        origin, kind = latest(equation.invars), equation.primitive.name
        mark = str(equation.params.get("name", ""))
        if kind in ("conv_general_dilated", "dot_general"):
            origin = len(products)
            products.append(_convolution(equation) if kind[0] == "c" else _matrix_product(equation))
        elif mark.startswith(SITE_MARK) and origin is not None:
            site = int(mark.removeprefix(SITE_MARK))
            products[origin] = products[origin]._replace(site=site)
        outputs, first = [origin] * len(equation.outvars), len(products)
        costliest: list[Product] = []
        for inner in inner_jaxprs(equation):
            # A condition's branches don't get what it is decided by.
            given = equation.invars[1:] if kind == "cond" else equation.invars
            same = len(inner.invars) == len(given)
            inputs = [latest([v]) for v in given] if same else [origin] * len(inner.invars)
            results = _collect(inner, inputs, products)
            if kind == "cond":
                branch, products[first:] = products[first:], []
                if sum(p.macs for p in branch) < sum(p.macs for p in costliest):
                    continue
                costliest = branch
            outputs = results if len(results) == len(outputs) else outputs
        found = costliest or products[first:]
        products[first:] = (
            [p.repeated(_times(equation)) for p in found] if kind in _LOOPS else found
        )
        behind.update(zip(equation.outvars, outputs, strict=True))
    return [latest([v]) for v in jaxpr.outvars]


_LOOPS = ("scan", "while", "shard_map")


def _times(equation: Any) -> int:
    """How often what stands in a loop, or in a map over devices, is computed."""
    if equation.primitive.name == "scan":
        return equation.params["length"]
    if equation.primitive.name == "shard_map":
        shape, mapped = equation.params["mesh"].shape, equation.params["manual_axes"]
        return math.prod(size for axis, size in shape.items() if axis in mapped)
    raise ConfigError(
        "a loop whose length is known only when it runs (jax.lax.while_loop) holds a convolution "
        f"or a matrix product, in {equation.source_info.name_stack}: its MACs can't be counted; "
        "use jax.lax.scan or nn.scan"
    )


def _convolution(equation: Any) -> Product:
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    kernel, output = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    out_dimension, in_dimension, *window = numbers.rhs_spec
    batch_dimension, channel_dimension, *space = numbers.out_spec
    window, sizes = [kernel[i] for i in window], [output[i] for i in space]
    pairs = [
        _pairs(*axis)
        for axis in zip(
            window,
            sizes,
            equation.params["window_strides"],
            equation.params["padding"],
            equation.params["lhs_dilation"],
            equation.params["rhs_dilation"],
            strict=True,
        )
    ]
    return Product(
        str(equation.source_info.name_stack),
        None,
        tuple(window),
        kernel[in_dimension] * groups,
        kernel[out_dimension],
        tuple(n for i, n in enumerate(output) if i != channel_dimension),
        groups,
        (*pairs, output[batch_dimension]),
    )


def _pairs(
    taps: int, positions: int, stride: int, padding: tuple[int, int], lhs: int, rhs: int
) -> int:
    """Pairs of an output position and a kernel's tap along one axis that are multiplied.

    The inputs, and zeros of the padding, stand at multiples of `lhs`; between them are zeros that
    are not multiplied. Neither does `rhs` give a kernel more taps.
    """
    first = np.arange(positions) * stride - padding[0]
    places = first[:, None] + np.arange(taps) * rhs
    return int(np.count_nonzero(places % lhs == 0))


def _matrix_product(equation: Any) -> Product:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, output = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    positions = output[:-1]
    return Product(
        str(equation.source_info.name_stack),
        None,
        (),
        math.prod(left[i] for i in contracted),
        output[-1] if output else 1,
        positions,
        1,
        positions,
    )
