"""From a trained network to a program: its traced computation, operation by operation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from furs_jax.errors import ConfigError
from furs_jax.export._elements import ELEMENTS
from furs_jax.export._known import Known, NoStepError, computed, fold, shape_of
from furs_jax.export._moves import MOVES
from furs_jax.export._steps import Constant, Program, Shape, Step, Tensor, held, laid
from furs_jax.export._traced import ENTERS, LEAVES, Traced, trace
from furs_jax.jobs.predicting import TrainedNetwork
from furs_jax.networks.jaxprs import inner_jaxprs

Operand = Tensor | Known

_SAME = ("name", "copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint")
_RULES = {**ELEMENTS, **MOVES}


def lower(found: TrainedNetwork) -> Program:
    """The steps of a trained network.

    Raises:
      ConfigError: an operation can't be exported; the message names it and the module.
    """
    traced = trace(found)
    jaxpr, arrays = traced.jaxpr.jaxpr, flatten_dict(found.variables, sep="/")
    lowering = Lowering(traced, arrays)
    images = Tensor(shape_of(jaxpr.invars[-1]), np.dtype(np.uint8))
    first = lowering.permuted(images, range(4), held(4))
    known = [Known(arrays[name], arrays[name].shape, name) for name in traced.names]
    try:
        (logits,) = lowering.follow(jaxpr, [*known, first], traced.jaxpr.consts)
    except NoStepError as error:
        raise ConfigError(
            f"{found.net.name} can't be exported in this format: {error.args[0]}; "
            "--format=stablehlo holds any network"
        ) from error
    if not isinstance(logits, Tensor):
        raise ConfigError(f"the outputs of {found.net.name} don't depend on the images")
    return Program(images, lowering.steps, logits)


class Lowering:
    """Writes a computation's steps.

    Attributes:
      steps: so far.
    """

    def __init__(self, traced: Traced, arrays: dict[str, np.ndarray]):
        self.steps: list[Step] = []
        self._norms, self._arrays = traced.norms, arrays

    def emit(
        self,
        kind: str,
        inputs: Sequence[Operand | Constant],
        shape: Shape,
        dtype: Any = np.float32,
        name: str = "",
        **options: Any,
    ) -> Tensor:
        """Adds a step; `shape` is in its order of axes."""
        output = Tensor(tuple(shape), np.dtype(dtype))
        laid_out = (x.constant() if isinstance(x, Known) else x for x in inputs)
        self.steps.append(Step(kind, tuple(laid_out), output, options, name))
        return output

    def value(self, x: Operand) -> Tensor:
        """An operand, of its full size, as a value."""
        if isinstance(x, Tensor):
            return x
        whole = Constant(x.array.transpose(held(x.array.ndim)), x.origin)
        return self.emit("expand", [whole], laid(x.shape), x.array.dtype)

    def whole(self, x: Operand) -> Tensor | Constant:
        """An operand of its full size."""
        if isinstance(x, Tensor) or None in x.shape:
            return self.value(x)
        return Constant(np.ascontiguousarray(x.full().transpose(held(x.array.ndim))), x.origin)

    def permuted(self, x: Tensor, axes: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """A value whose axes are called `axes`, with them in the order `wanted`."""
        order = tuple(list(axes).index(axis) for axis in wanted)
        shape, moving = tuple(x.shape[a] for a in order), [a for a in order if x.shape[a] != 1]
        if moving == sorted(moving):
            return self.reshaped(x, shape)
        return self.emit("permute", [x], shape, x.dtype, order=order)

    def reshaped(self, x: Tensor, shape: Shape) -> Tensor:
        if shape == x.shape:
            return x
        if (None in shape) != (None in x.shape):
            raise NoStepError("mixes images with each other")
        return self.emit("reshape", [x], shape, x.dtype)

    def elementwise(self, kind: str, equation: Any, operands: Sequence[Operand]) -> Tensor:
        """A step of operands that are broadcast to the equation's result."""
        (variable,) = equation.outvars
        shapes = [x.shape if isinstance(x, Tensor) else laid(x.array.shape) for x in operands]
        shape = tuple(
            next((size for size in sizes if size != 1), 1)
            for sizes in zip(*filter(None, shapes), strict=True)
        )
        x, wanted = self.emit(kind, operands, shape, variable.aval.dtype), laid(shape_of(variable))
        return x if shape == wanted else self.emit("expand", [x], wanted, x.dtype)

    def follow(
        self, jaxpr: Any, inputs: Sequence[Operand], constants: Sequence[Any] = ()
    ) -> list[Operand]:
        """Writes the steps of a computation; returns its outputs.

        Raises:
          NoStepError: there is none for an operation; the message names that and its module.
        """
        known: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        known.update(zip(jaxpr.constvars, map(computed, constants), strict=True))

        def of(variable: Any) -> Operand:
            return computed(variable.val) if hasattr(variable, "val") else known[variable]

        whole = ""  # a BatchNorm that is written as one step, while it is passed
        for equation in jaxpr.eqns:
            mark = equation.params["name"] if equation.primitive.name == "name" else ""
            if whole and mark != f"{LEAVES}{whole}":
                continue
            if mark.startswith(ENTERS) and isinstance(x := of(equation.invars[0]), Tensor):
                whole = mark.removeprefix(ENTERS)
                known[equation.outvars[0]] = x
                continue
            if whole:
                known[equation.outvars[0]] = self._batch_norm(whole, x)
                whole = ""
                continue
            try:
                results = self._results(equation, [of(variable) for variable in equation.invars])
            except NoStepError as error:
                if error.args[1:]:  # said already, of a computation within this
                    raise
                place = str(equation.source_info.name_stack)
                what = f"{equation.primitive.name}{f' (in {place})' if place else ''}"
                raise NoStepError(f"{what} {error.args[0]}", place) from error
            known.update(zip(equation.outvars, results, strict=True))
        return [of(variable) for variable in jaxpr.outvars]

    def _results(self, equation: Any, operands: list[Operand]) -> list[Operand]:
        kind, inner = equation.primitive.name, inner_jaxprs(equation)
        if kind == "platform_index":  # which of computations that say the same
            return [computed(np.int32(0))]
        if kind == "dim_as_value":
            raise NoStepError("counts the images")
        if inner and kind not in ("scan", "while"):
            given = operands[1:] if kind == "cond" else operands
            if len(inner) > 1 or len(inner[0].invars) != len(given) or inner[0].constvars:
                raise NoStepError("chooses what is computed")
            return self.follow(inner[0], given)
        if all(isinstance(x, Known) for x in operands):
            return fold(equation, operands)
        if kind in _SAME:
            return operands
        if kind not in _RULES:
            raise NoStepError("is no operation that it has")
        results = _RULES[kind](self, equation, operands)
        return results if isinstance(results, list) else [results]

    def _batch_norm(self, path: str, x: Tensor) -> Tensor:
        mean, var = (self._variable("batch_stats", path, what) for what in ("mean", "var"))
        scale = self._variable("params", path, "scale") or Constant(np.ones_like(mean.array))
        bias = self._variable("params", path, "bias") or Constant(np.zeros_like(mean.array))
        module = self._norms[path]
        return self.emit(
            "batch_norm",
            [x, scale, bias, mean, var],
            x.shape,
            x.dtype,
            path,
            epsilon=float(module.epsilon),
            momentum=1 - float(module.momentum),  # share of the new statistics
        )

    def _variable(self, collection: str, path: str, what: str) -> Constant | None:
        name = f"{collection}/{path}/{what}"
        return Constant(self._arrays[name], name) if name in self._arrays else None
