"""Arrays of a computation that follow from constants alone, and are computed as they are met."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from furs_jax.export._steps import Constant, Shape, held


class NoStepError(Exception):
    """What a computation does that there is no step for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """An array that doesn't depend on the images.

    Attributes:
      array: as in JAX; its length is 1 along axes where it is the same, as that of the images is.
      shape: in JAX.
      origin: see `Constant`.
    """

    array: np.ndarray
    shape: Shape
    origin: str = ""

    def full(self, images: int = 1) -> np.ndarray:
        return np.broadcast_to(self.array, [images if d is None else d for d in self.shape])

    @property
    def scalar(self) -> float | int | bool | None:
        """Its one value; None where it has several."""
        return self.array.item() if self.array.size == 1 else None

    def constant(self) -> Constant:
        """As a step has it."""
        if self.array.size == 1:
            return Constant(self.array.reshape(()), self.origin)
        laid = self.array.transpose(held(self.array.ndim))
        return Constant(np.ascontiguousarray(laid), self.origin)


def shape_of(variable: Any) -> Shape:
    """Of a variable of a jaxpr, in JAX's order.

    Raises:
      NoStepError: a length follows from the number of images, and is another one.
    """
    sizes = variable.aval.shape
    if any(jax_export.is_symbolic_dim(size) and str(size) != IMAGES for size in sizes):
        raise NoStepError("mixes images with each other")
    return tuple(None if jax_export.is_symbolic_dim(size) else int(size) for size in sizes)


IMAGES = "images"  # how many there are, in a trace


def computed(array: Any, shape: Shape | None = None) -> Known:
    """Of an array, kept with length 1 along axes where it is the same."""
    array = np.asarray(array)
    shape = array.shape if shape is None else shape
    for axis in range(array.ndim):
        if array.shape[axis] > 1 and _is_same_along(array, axis):
            array = array.take([0], axis)
    return Known(array, shape)


def fold(equation: Any, operands: Sequence[Known]) -> list[Known]:
    """The results of an equation of constants.

    Raises:
      NoStepError: they are other ones for another number of images, or from image to image.
    """
    if equation.primitive.name in ("convert_element_type", "copy", "copy_p"):
        (x,), (variable,) = operands, equation.outvars
        if x.array.dtype == variable.aval.dtype:
            return [x]
    shapes = [shape_of(variable) for variable in equation.outvars]
    results = _evaluated(equation, operands, shapes, 2)
    if any(None in shape for shape in (*shapes, *(x.shape for x in operands))):
        for two, three in zip(results, _evaluated(equation, operands, shapes, 3), strict=True):
            if not np.array_equal(two, three, equal_nan=two.dtype.kind == "f"):
                raise NoStepError("counts the images")
    return [computed(*result) for result in zip(results, shapes, strict=True)]


def _evaluated(
    equation: Any, operands: Sequence[Known], shapes: Sequence[Shape], images: int
) -> list[np.ndarray]:
    """Of so many images, with length 1 along them."""

    def static(value: Any) -> Any:
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return tuple(map(static, value))
        return images if jax_export.is_symbolic_dim(value) else value

    params = {name: static(value) for name, value in equation.params.items()}
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(*(x.full(images) for x in operands), **params)
    results = results if equation.primitive.multiple_results else [results]
    found = []
    for array, shape in zip(map(np.asarray, results), shapes, strict=True):
        if None in shape:
            axis = shape.index(None)
            if not _is_same_along(array, axis):
                raise NoStepError("numbers the images")
            array = array.take([0], axis)
        found.append(array)
    return found


def _is_same_along(array: np.ndarray, axis: int) -> bool:
    first = np.broadcast_to(array.take([0], axis), array.shape)
    return np.array_equal(first, array, equal_nan=array.dtype.kind == "f")
