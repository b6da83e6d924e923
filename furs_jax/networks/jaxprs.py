"""Computations within computations, as a trace has them."""

from typing import Any

import jax


def inner_jaxprs(equation: Any) -> list[Any]:
    """The computations that an equation of a jaxpr holds, as loops and branches do.

    Of what `jax.lax.platform_dependent` chooses from only the default, which says the same.
    """
    values = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns"))
    inner = [getattr(v, "jaxpr", v) for v in values if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
    return inner[-1:] if equation.params.get("branches_platforms") else inner
