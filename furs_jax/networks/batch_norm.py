"""Which results of a computation differ from device to device, as its trace tells."""

from collections.abc import Sequence
from typing import Any

from furs_jax.networks.jaxprs import inner_jaxprs

_REDUCED = ("psum", "psum_invariant", "pmax", "pmin", "all_gather", "all_gather_invariant")


def differing(jaxpr: Any, inputs: Sequence[bool], axis: str) -> list[bool]:
    """Whether each output can differ along the mapped axis of the name `axis`.

    It does where it depends on an input that differs, but for what is summed or gathered over the
    whole axis on the way.

    Args:
      jaxpr: the computation of one device.
      inputs: whether each input differs.
      axis: see above.
    """
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def differs(variables: Sequence[Any]) -> list[bool]:
        return [not hasattr(v, "val") and known.get(v, False) for v in variables]

    for equation in jaxpr.eqns:
        results = _results(equation, differs(equation.invars), axis)
        known.update(zip(equation.outvars, results, strict=True))
    return differs(jaxpr.outvars)


def _results(equation: Any, given: list[bool], axis: str) -> list[bool]:
    """Of one equation, which may hold computations of its own."""
    name, params, inner = equation.primitive.name, equation.params, inner_jaxprs(equation)
    along = params.get("axes", params.get("axis_name"))
    over_axis = axis in (along if isinstance(along, tuple) else (along,))
    if over_axis and name == "axis_index":
        return [True]
    if over_axis and name in _REDUCED and params.get("axis_index_groups") is None:
        return [False] * len(equation.outvars)
    if name == "scan":
        return _looped(inner[0], given, params["num_consts"], params["num_carry"], axis)
    if name == "while":
        of_condition, constants = params["cond_nconsts"], params["body_nconsts"]
        body, condition = params["body_jaxpr"].jaxpr, params["cond_jaxpr"].jaxpr
        count = len(equation.outvars)
        carry = _looped(body, given[of_condition:], constants, count, axis)
        longer = any(differing(condition, given[:of_condition] + carry, axis))
        return [longer or differs for differs in carry]
    if name == "cond":
        branches = [differing(branch, given[1:], axis) for branch in inner]
        return [given[0] or any(each) for each in zip(*branches, strict=True)]
    if len(inner) == 1 and len(inner[0].invars) == len(given):
        return differing(inner[0], given, axis)
    return [any(given)] * len(equation.outvars)


def _looped(body: Any, given: list[bool], constants: int, carried: int, axis: str) -> list[bool]:
    """Of a loop: what is carried differs where it does in any turn."""
    carry = slice(constants, constants + carried)
    while True:
        results = differing(body, given, axis)
        turned = [a or b for a, b in zip(given[carry], results, strict=False)]
        if turned == given[carry]:
            return turned + results[carried:]
        given = [*given[:constants], *turned, *given[constants + carried :]]
