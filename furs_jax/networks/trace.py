"""A module's trace: its products, variables and gates, and the table of layers from them."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from furs_jax.gates import SiteMarks
from furs_jax.networks.layers import Layer
from furs_jax.networks.products import Product, products_of


class Trace(NamedTuple):
    """What one channel vector's computation consists of."""

    products: list[Product]
    variables: dict[str, Any]  # shapes, by collection
    logits: Any  # shapes of what the module returns
    met: list[tuple[int, tuple[int, ...]]]  # see `SiteMarks`


class Marked(NamedTuple):
    """A module's computation for one image, its sites marked."""

    variables: dict[str, Any]  # shapes, by collection
    jaxpr: Any  # of apply, since a module may compute more where it is initialised
    logits: Any  # shapes of what the module returns
    met: list[tuple[int, tuple[int, ...]]]  # see `SiteMarks`


def mark_sites(module: nn.Module, image_shape: tuple[int, int, int]) -> Marked:
    """Traces module.apply(variables, images, marks, train=False); nothing is computed."""
    marks, image = SiteMarks([]), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.eval_shape(jax.random.key, 0), image)

    def apply(variables: Any, images: jax.Array) -> Any:
        return module.apply(variables, images, marks, train=False)

    traced, logits = jax.make_jaxpr(apply, return_shape=True)(variables, image)
    return Marked(dict(variables), traced.jaxpr, logits, marks.met)


@functools.lru_cache(maxsize=256)
def trace_module(module: nn.Module, image_shape: tuple[int, int, int]) -> Trace:
    """What the module's computation consists of."""
    marked = mark_sites(module, image_shape)
    return Trace(products_of(marked.jaxpr), marked.variables, marked.logits, marked.met)


def traced_layers(trace: Trace) -> tuple[Layer, ...]:
    """The table of layers; what belongs to no product, as BatchNorms, comes in a last row."""
    rows, left = [], dict(sizes(trace.variables.get("params", {})))
    for product in trace.products:
        name = product.scope.partition("/")[2] or product.scope
        own = sum(left.pop(key) for key in list(left) if key.rpartition("/")[0] == name)
        *above, width = (1, 1, *product.positions)
        row = Layer(
            name=name,
            kernel=product.kernel or 1,
            inputs=product.inputs,
            outputs=product.outputs,
            height=math.prod(above),
            width=width,
            site=product.site,
            groups=product.groups,
            dense=not product.kernel,
        )
        if row.macs != product.macs:
            row = row._replace(pairs=math.prod(product.pairs))
        rows.append(row._replace(extra=own - row.weights))
    rest = Layer("normalisation and others", 1, 0, 0, 0, 0, extra=sum(left.values()))
    return (*rows, rest)


def sizes(params: Any) -> list[tuple[str, int]]:
    """(path, number of values) of each array."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [("/".join(entry.key for entry in path), math.prod(x.shape)) for path, x in leaves]
