"""Operations element by element, as steps. Each rule takes a `Lowering`, an equation, operands."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from furs_jax.export._known import Known, NoStepError, computed
from furs_jax.export._steps import Tensor

Operand = Tensor | Known

# What a step is called otherwise than the operation.
_NAMES = {"logistic": "sigmoid", "add_any": "add"}
_ALIKE = (
    *("abs", "neg", "exp", "log", "tanh", "sqrt", "rsqrt", "sign", "floor", "ceil", "erf", "sin"),
    *("cos", "not", "logistic", "add", "add_any", "sub", "mul", "div", "min", "pow"),
    *("eq", "lt", "le", "gt", "ge", "and", "or", "xor"),
)


def _alike(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    name = equation.primitive.name
    return write.elementwise(_NAMES.get(name, name), equation, operands)


def _larger(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    limits = [x.scalar for x in operands if isinstance(x, Known)]
    values = [x for x in operands if isinstance(x, Tensor)]
    if limits == [-np.inf]:
        return values[0]
    if limits == [0]:
        return write.elementwise("relu", equation, values)
    return write.elementwise("max", equation, operands)


def _different(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    return write.elementwise("not", equation, [write.elementwise("eq", equation, operands)])


def _square(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,) = operands
    return write.elementwise("mul", equation, [x, x])


def _power(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,), power = operands, equation.params["y"]
    if power == 2:
        return _square(write, equation, operands)
    return write.elementwise("pow", equation, [x, _number(power, x)])


def _less_one(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,) = operands
    return write.elementwise(
        "sub", equation, [write.elementwise("exp", equation, [x]), _number(1, x)]
    )


def _of_one_more(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,) = operands
    return write.elementwise(
        "log", equation, [write.elementwise("add", equation, [x, _number(1, x)])]
    )


def _complement(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,) = operands
    return write.elementwise(
        "sub", equation, [_number(1, x), write.elementwise("erf", equation, [x])]
    )


def _rounded(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    if int(equation.params["rounding_method"]) != 1:
        raise NoStepError("rounds halves away from zero")
    return write.elementwise("round", equation, operands)


def _clamped(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    low, x, high = operands
    return write.elementwise("min", equation, [write.elementwise("max", equation, [x, low]), high])


def _chosen(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    by, *cases = operands
    if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
        raise NoStepError("chooses between more than two")
    if isinstance(by, Known) and by.scalar is not None:
        return write.value(cases[by.scalar])
    return write.elementwise("where", equation, [by, *reversed(cases)])


def _converted(write: Any, equation: Any, operands: Sequence[Operand]) -> Operand:
    (x,), dtype = operands, np.dtype(equation.outvars[0].aval.dtype)
    return x if x.dtype == dtype else write.emit("cast", [x], x.shape, dtype)


def _number(number: float, x: Tensor) -> Known:
    return computed(np.asarray(number, x.dtype))


ELEMENTS = {
    **dict.fromkeys(_ALIKE, _alike),
    "max": _larger,
    "ne": _different,
    "square": _square,
    "integer_pow": _power,
    "expm1": _less_one,
    "log1p": _of_one_more,
    "erfc": _complement,
    "round": _rounded,
    "clamp": _clamped,
    "select_n": _chosen,
    "convert_element_type": _converted,
}
