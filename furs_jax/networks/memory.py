"""The memory that a computation takes, from its trace."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Var
from jax.interpreters.partial_eval import dce_jaxpr

from furs_jax.networks.jaxprs import inner_jaxprs


def peak_bytes(fn: Callable[..., Any], *args: Any) -> int:
    """Most bytes of arrays that are alive at once in the traced computation of fn(*args).

    Arguments are left out, and what no result depends on. An upper estimate of what XLA allocates,
    which fuses elementwise operations; without what a convolution's algorithm takes for itself.
    """
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    # Gradients of gates alone leave much that nobody asks for, as XLA sees, too.
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _jaxpr_peak(needed)


def _jaxpr_peak(jaxpr: Any) -> int:
    def size(variable: Any) -> int:
        return math.prod(variable.aval.shape) * variable.aval.dtype.itemsize

    last_use = {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, Var)}
    for place, equation in reversed(list(enumerate(jaxpr.eqns))):
        for v in equation.invars:
            if isinstance(v, Var):
                last_use.setdefault(v, place)
    alive: dict[Any, int] = {}
    peak = 0
    for place, equation in enumerate(jaxpr.eqns):
        before = sum(alive.values())
        inner = max(map(_jaxpr_peak, inner_jaxprs(equation)), default=0)
        alive.update((v, size(v)) for v in equation.outvars)
        peak = max(peak, before + inner, sum(alive.values()))
        alive = {v: bytes_ for v, bytes_ in alive.items() if last_use.get(v, place) > place}
    return peak
