"""What the operations of a traced computation do to the indices of axes; see `indices`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from furs_jax.gates import SITE_MARK
from furs_jax.networks.indices import ALIKE, Graph, Nodes
from furs_jax.networks.jaxprs import inner_jaxprs
from furs_jax.networks.layout import LAYOUT, Value, axes_without, axis_of, fixed_axes

CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
# Elementwise, of one array: zeros stay zeros.
_KEEPING = (
    *("convert_element_type", "reduce_precision", "copy", "copy_p", "stop_gradient", "neg", "abs"),
    *("sign", "floor", "ceil", "round", "sqrt", "cbrt", "square", "tanh", "sinh", "sin", "tan"),
    *("asin", "atan", "asinh", "atanh", "erf", "expm1", "log1p", "real", "imag", "name"),
    "optimization_barrier",
)
# Elementwise: zeros become something else.
_OTHER = (
    *("exp", "exp2", "log", "logistic", "rsqrt", "cos", "cosh", "acos", "acosh", "erfc", "erf_inv"),
    *("lgamma", "digamma", "not", "is_finite", "pow", "integer_pow", "rem", "atan2"),
    *("eq", "ge", "le"),
)
_SUMS = ("add", "sub", "add_any", "max", "min", "gt", "lt", "ne", "or", "xor")
_PRODUCTS = ("mul", "div", "and")
ELEMENTWISE = (*_KEEPING, *_OTHER, *_SUMS, *_PRODUCTS, "select_n", "clamp")


def follow(jaxpr: Any, inputs: Sequence[Value], graph: Graph) -> list[Value]:
    """Follows values through a computation; returns its outputs."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update((variable, fixed_axes(variable)) for variable in jaxpr.constvars)

    def of(variable: Any) -> Value:
        if not hasattr(variable, "val"):
            return known[variable]
        return fixed_axes(variable) if np.ndim(variable.val) else Value((), float(variable.val))

    for equation in jaxpr.eqns:
        operands = [of(variable) for variable in equation.invars]
        inner = inner_jaxprs(equation)
        # With a single computation inside a condition chooses by platform: see `inner_jaxprs`.
        chosen = equation.primitive.name == "cond" and len(inner) == 1
        given = operands[1:] if chosen else operands
        called = chosen or equation.primitive.name in CALLS
        if called and len(inner[0].invars) == len(given):
            results = follow(inner[0], given, graph)
        else:
            graph.see(*(nodes for operand in operands for nodes in operand.axes))
            results = _results(equation, operands, graph)
        known.update(zip(equation.outvars, results, strict=True))
    return [of(variable) for variable in jaxpr.outvars]


def _results(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    kind, params = equation.primitive.name, equation.params
    if kind == "name" and params["name"].startswith(SITE_MARK):
        return [_gated(operands[0], params["name"], equation, graph)]
    if kind in _KEEPING or (kind == "integer_pow" and params["y"] > 0):
        return [v if kind == "convert_element_type" else _changed(v) for v in operands]
    if kind in _OTHER:
        return [_elementwise(graph.sum, [*operands, Value((), 1.0)], equation, graph)]
    if kind in _SUMS:
        return [_elementwise(graph.sum, _beside_limits(kind, operands), equation, graph)]
    if kind in _PRODUCTS:
        return [_elementwise(graph.product, operands, equation, graph)]
    if kind == "select_n":
        chosen = functools.partial(_chosen, graph)
        return [_elementwise(chosen, operands, equation, graph)]
    results = _RULES[kind](equation, operands, graph) if kind in _RULES else None
    if results is not None:
        return results
    for operand in operands:  # unknown: everything may depend on every place
        graph.fix(*operand.axes)
    return [fixed_axes(variable) for variable in equation.outvars]


def _gated(x: Value, mark: str, equation: Any, graph: Graph) -> Value:
    *above, channels = x.axes
    if channels is None:
        channels = np.full(equation.outvars[0].aval.shape[-1], ALIKE)
    return Value((*above, graph.gate(int(mark.removeprefix(SITE_MARK)), channels)))


def _changed(x: Value) -> Value:
    """Its zeros are kept; of another number is no longer known which."""
    return x if x.constant == 0 else x._replace(constant=None)


def _elementwise(
    join: Callable[[list[Nodes]], Nodes], operands: Sequence[Value], equation: Any, graph: Graph
) -> Value:
    shape = equation.outvars[0].aval.shape
    if all(value.constant is not None for value in operands):
        return Value((None,) * len(shape))
    return Value(
        tuple(
            join([axis_of(value, axis, size, graph) for value in operands])
            for axis, size in enumerate(shape)
        )
    )


def _beside_limits(kind: str, operands: list[Value]) -> list[Value]:
    """Without numbers that zeros are no lower than, or no higher."""
    limits = {"max": lambda number: number <= 0, "min": lambda number: number >= 0}
    if kind not in limits:
        return operands
    return [v for v in operands if v.constant is None or not limits[kind](v.constant)]


def _chosen(graph: Graph, parts: list[Nodes]) -> Nodes:
    by, *cases = parts
    return graph.sum(cases, deciding=by)


def _convolution(equation: Any, operands: list[Value], graph: Graph) -> list[Value] | None:
    x, kernel = operands
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    batch, feature, *space = numbers.lhs_spec
    outputs, inputs, *window = numbers.rhs_spec
    per_group = equation.invars[1].aval.shape[inputs]
    if equation.params["batch_group_count"] > 1 or (groups > 1 and per_group > 1):
        return None  # a channel's place is that in its group
    graph.fix(*(x.axes[axis] for axis in space))
    graph.need(*(kernel.axes[axis] for axis in window))
    read, made = x.axes[feature], kernel.axes[outputs]
    result = fixed_axes(equation.outvars[0])
    if groups == 1:
        graph.need(graph.product([read, kernel.axes[inputs]]))
    else:
        graph.need(kernel.axes[inputs])
        times = equation.invars[1].aval.shape[outputs] // groups
        made = graph.product([None if read is None else np.repeat(read, times), made])
    axes = list(result.axes)
    axes[numbers.out_spec[0]], axes[numbers.out_spec[1]] = x.axes[batch], made
    return [Value(tuple(axes))]


def _matrix_product(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    left, right = operands
    (summed, with_), (batch, beside) = equation.params["dimension_numbers"]
    for a, b in zip(summed, with_, strict=True):
        graph.need(graph.product([left.axes[a], right.axes[b]]))
    axes = [
        graph.product([left.axes[a], right.axes[b]]) for a, b in zip(batch, beside, strict=True)
    ]
    axes += axes_without(left, (*summed, *batch)) + axes_without(right, (*with_, *beside))
    return [Value(tuple(axes))]


def _reduction(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    graph.need(*(operands[0].axes[axis] for axis in equation.params["axes"]))
    return [Value(tuple(axes_without(operands[0], equation.params["axes"])))]


def _windows(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    x, params = operands[0], equation.params
    axes = list(x.axes)
    for axis, fixed in enumerate(fixed_axes(equation.outvars[0]).axes):
        steps = params["window_dimensions"][axis], params["window_strides"][axis]
        if steps != (1, 1) or any(params["padding"][axis]):
            graph.fix(axes[axis])
            axes[axis] = fixed
    return [Value(tuple(axes))]


_RULES = {
    **LAYOUT,
    "conv_general_dilated": _convolution,
    "dot_general": _matrix_product,
    **{f"reduce_{what}": _reduction for what in ("sum", "max", "min", "prod", "and", "or")},
    **{f"reduce_window_{what}": _windows for what in ("sum", "max", "min")},
}
