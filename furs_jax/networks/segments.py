"""A network's forward pass in pieces that are timed alone: a convolution with what is fused to it.

A segment begins with a convolution, a product, a pooling, a concatenation or whatever else is not
elementwise, or with a sum of two such; elementwise operations that follow belong to it, as a
compiler fuses them. So BatchNorm and activation are timed with their convolution. Padding, cutting
and what is computed from weights alone belong to what reads it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal, Var

from furs_jax.networks.jaxprs import inner_jaxprs
from furs_jax.networks.primitives import CALLS, ELEMENTWISE

_MOVES = ("reshape", "squeeze", "expand_dims", "copy", "name", "broadcast_in_dim", "pad", "slice")
_FUSED = {*ELEMENTWISE, *_MOVES, "rev", "transpose", "iota", "stop_gradient"}
_PRODUCTS = ("conv_general_dilated", "dot_general")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Segment(NamedTuple):
    """A piece of a computation.

    Attributes:
      program: its computation; inputs are weights, and arrays that earlier segments made.
      kernels: of the inputs those that a convolution or product reads as its weights.
      key: equal where two segments compute the same from arrays of the same shapes.
      sizes: of all inputs' and outputs' axes.
    """

    program: Jaxpr
    kernels: frozenset[int]
    key: str
    sizes: tuple[int, ...]


def module_segments(
    module: nn.Module, image_shape: tuple[int, int, int], batch_size: int
) -> list[Segment]:
    """The pieces of a module's forward pass of evaluation, for normalised float32 images."""
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.eval_shape(jax.random.key, 0), images)
    traced = jax.make_jaxpr(lambda variables, images: module.apply(variables, images, None))
    return segments(traced(variables, images).jaxpr)


def segments(jaxpr: Any) -> list[Segment]:
    """The pieces of a computation whose last argument is the images, the others the weights."""
    equations, outputs = _inlined(jaxpr)
    maker: dict[Var, Any] = {}  # of what is made where it is needed: of weights, or padded, moved
    place: dict[Var, int] = {jaxpr.invars[-1]: 0}  # of arrays, the piece that they come from
    pieces: list[list[Any]] = [[]]
    for equation in equations:
        kind, read = equation.primitive.name, {place[v] for v in _variables(equation) if v in place}
        if not read or (kind in _MOVES and len(read) == 1):
            maker.update(dict.fromkeys(equation.outvars, equation))
        elif kind not in _FUSED or len(read) > 1:
            read = {len(pieces)}
            pieces.append([equation])
        else:
            pieces[max(read)].append(equation)
        place.update((v, number) for v in equation.outvars for number in read)
    whole = [[*_makers(map(_variables, piece), maker), *piece] for piece in pieces]
    reads = [{v for equation in own for v in _variables(equation)} for own in whole]
    reads.append({v for e in _makers([outputs], maker) for v in _variables(e)}.union(outputs))
    found = []
    for number, (piece, own) in enumerate(zip(pieces, whole, strict=True)):
        later = set().union(*reads[number + 1 :])
        if made := [v for equation in piece for v in equation.outvars if v in later]:
            found.append(_segment(own, made, maker, jaxpr.debug_info.with_unknown_names()))
    return found


def _variables(equation: Any) -> list[Var]:
    return [v for v in equation.invars if not isinstance(v, Literal)]


def _segment(
    equations: Sequence[Any], made: Sequence[Var], maker: dict[Var, Any], unnamed: Any
) -> Segment:
    inner = {v for equation in equations for v in equation.outvars}
    inputs = list(dict.fromkeys(v for e in equations for v in _variables(e) if v not in inner))
    of_products = [[e.invars[1]] for e in equations if e.primitive.name in _PRODUCTS]
    kernels = set().union(*of_products)
    kernels |= {v for e in _makers(of_products, maker) for v in _variables(e)}
    program = Jaxpr((), inputs, list(made), list(equations), debug_info=unnamed)
    return Segment(
        program,
        frozenset(place for place, v in enumerate(inputs) if v in kernels),
        hashlib.sha256(_ADDRESS.sub("", str(program)).encode()).hexdigest()[:16],
        tuple(size for v in (*inputs, *made) for size in v.aval.shape),
    )


def _makers(needed: Iterable[Iterable[Any]], maker: dict[Var, Any]) -> list[Any]:
    """The equations that make variables where they are needed, in order."""
    found: dict[int, Any] = {}

    def follow(variable: Any) -> None:
        equation = None if isinstance(variable, Literal) else maker.get(variable)
        if equation is not None and id(equation) not in found:
            for v in equation.invars:
                follow(v)
            found[id(equation)] = equation

    for variables in needed:
        for variable in variables:
            follow(variable)
    return list(found.values())


def _inlined(jaxpr: Any) -> tuple[list[Any], list[Any]]:
    """The equations, those of called functions in their place, and the outputs."""
    equations: list[Any] = []

    def inline(jaxpr: Any, inputs: Sequence[Any], consts: Sequence[Any]) -> list[Any]:
        known = dict(zip((*jaxpr.invars, *jaxpr.constvars), (*inputs, *consts), strict=True))

        def of(variable: Any) -> Any:
            return variable if isinstance(variable, Literal) else known[variable]

        for equation in jaxpr.eqns:
            operands, inner = [of(v) for v in equation.invars], inner_jaxprs(equation)
            if (
                equation.primitive.name in CALLS
                and len(inner[0].invars) == len(operands)
                and not inner[0].constvars
            ):
                made = inline(inner[0], operands, ())
            else:
                made = [Var(v.aval) for v in equation.outvars]
                equations.append(equation.replace(invars=operands, outvars=made))
            known.update(zip(equation.outvars, made, strict=True))
        return [of(v) for v in jaxpr.outvars]

    return equations, inline(jaxpr, jaxpr.invars, jaxpr.constvars)
