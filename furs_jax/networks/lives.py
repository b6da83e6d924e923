"""Which arrays of a network's forward pass are in memory at each of its steps, from its trace."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from furs_jax.networks.jaxprs import inner_jaxprs
from furs_jax.networks.primitives import CALLS, ELEMENTWISE

_SAME = ("reshape", "squeeze", "expand_dims", "copy", "name", "stop_gradient")
_FUSED = {*ELEMENTWISE, "broadcast_in_dim", "pad", "slice", "rev", "transpose", "iota"}


class Lives(NamedTuple):
    """Arrays, and when they are needed.

    Attributes:
      arrays: of each the numbers that multiply to its bytes.
      alive: bool, shape (steps, arrays).
    """

    arrays: tuple[tuple[int, ...], ...]
    alive: np.ndarray


class _Step(NamedTuple):
    made: list[int]
    read: frozenset[int]
    fused: bool  # what it reads for the last time makes room for what it makes


@dataclasses.dataclass
class _Value:
    """What is computed from some arrays once it is needed, and is one then."""

    parts: frozenset[int]  # none: it follows from the weights alone
    array: int | None = None


def lives(jaxpr: Any) -> Lives:
    """The arrays of a computation whose last argument is the image, the others the weights.

    What convolutions, products, sums, concatenations and all other operations make is an array, and
    the image. Elementwise operations, with padding and cutting, are fused: together they make one
    array, where something else than such an operation reads the result, in the place of what they
    read for the last time. Steps are in the order of the trace; what loops hold inside is left out.
    """
    steps, arrays = [], []

    def make(variables: Sequence[Any], read: frozenset[int], fused: bool) -> list[_Value]:
        made = list(range(len(arrays), len(arrays) + len(variables)))
        arrays.extend((v.aval.dtype.itemsize, *v.aval.shape) for v in variables)
        steps.append(_Step(made, read, fused))
        return [_Value(frozenset({own}), own) for own in made]

    def array_of(value: _Value, variable: Any) -> int | None:
        if value.array is None and value.parts:
            (made,) = make([variable], value.parts, fused=True)
            value.array, value.parts = made.array, made.parts
        return value.array

    def follow(jaxpr: Any, inputs: Sequence[_Value]) -> list[_Value]:
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def of(variable: Any) -> _Value:
            constant = hasattr(variable, "val") or variable not in known
            return _Value(frozenset()) if constant else known[variable]

        for equation in jaxpr.eqns:
            operands = [of(variable) for variable in equation.invars]
            kind, inner = equation.primitive.name, inner_jaxprs(equation)
            chosen = kind == "cond" and len(inner) == 1  # by platform, see `inner_jaxprs`
            given = operands[1:] if chosen else operands
            parts = frozenset().union(*(operand.parts for operand in operands))
            if (chosen or kind in CALLS) and len(inner[0].invars) == len(given):
                results = follow(inner[0], given)
            elif kind in _SAME:
                results = operands[:1]
            elif kind in _FUSED or not parts:
                results = [_Value(parts) for _ in equation.outvars]
            else:
                pairs = zip(operands, equation.invars, strict=True)
                read = frozenset(array_of(value, v) for value, v in pairs) - {None}
                results = make(equation.outvars, read, fused=False)
            known.update(zip(equation.outvars, results, strict=True))
        return [of(variable) for variable in jaxpr.outvars]

    image = make(jaxpr.invars[-1:], frozenset(), fused=False)
    weights = [_Value(frozenset()) for _ in jaxpr.invars[:-1]]
    found = follow(jaxpr, [*weights, *image])
    kept = {array_of(value, v) for value, v in zip(found, jaxpr.outvars, strict=True)}
    return Lives(tuple(arrays), _alive(steps, len(arrays), kept))


def _alive(steps: Sequence[_Step], arrays: int, kept: set[int | None]) -> np.ndarray:
    last = {own: place for place, step in enumerate(steps) for own in (*step.made, *step.read)}
    last |= {own: len(steps) for own in kept if own is not None}
    alive, now = np.zeros((len(steps), arrays), bool), set()
    for place, step in enumerate(steps):
        ends = {own for own in now if last[own] <= place}
        alive[place, list((now - ends if step.fused else now) | set(step.made))] = True
        now = {own for own in now | set(step.made) if last[own] > place}
    return alive
