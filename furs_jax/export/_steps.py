"""A network as a list of steps, which the writers of ONNX and of PyTorch spell out.

Images lie as both want them: what has four axes has its last one, the channels, second. All else
lies as in JAX.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Axes of an array in JAX, in the order in which a step's array has them.
_CHANNELS_SECOND = (0, 3, 1, 2)

Shape = tuple[int | None, ...]  # None: as many as there are images


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """An array that depends on the images, by a step."""

    shape: Shape
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An array that does not; along axes where it is the same it may have length 1.

    Attributes:
      array: as a step has it.
      origin: its path among the variables, "params/stem/conv/kernel"; empty where it was computed.
    """

    array: np.ndarray
    origin: str = ""

    @property
    def scalar(self) -> float | int | bool | None:
        """Its one value; None where it has several."""
        return self.array.item() if self.array.size == 1 else None


Operand = Tensor | Constant


class Step(NamedTuple):
    """One operation.

    Attributes:
      kind: of operation: a key of the writers' tables.
      inputs: operands, in order.
      output: what is computed.
      options: numbers, by name; axes are those of arrays as steps have them.
      name: of the layer, as the Flax module's path has it: "stem/conv".
    """

    kind: str
    inputs: tuple[Operand, ...]
    output: Tensor
    options: dict[str, Any]
    name: str = ""


class Program(NamedTuple):
    """A network: uint8 images (N, H, W, C), as JAX has them, to float32 logits (N, K)."""

    images: Tensor
    steps: list[Step]
    logits: Tensor

    def readers(self) -> dict[Tensor, int]:
        """How often each value is read, the logits once more by who asks for them."""
        read = [value for step in self.steps for value in step.inputs if isinstance(value, Tensor)]
        return dict(collections.Counter([*read, self.logits]))


def held(rank: int) -> tuple[int, ...]:
    """The axes in JAX of an array of so many, in the order of a step's array."""
    return _CHANNELS_SECOND if rank == 4 else tuple(range(rank))


def place_of(axis: int, rank: int) -> int:
    """Where a step's array has an axis of JAX."""
    return held(rank).index(axis % rank)


def laid(shape: Sequence[Any]) -> tuple[Any, ...]:
    """What belongs to each axis in JAX, in the order of a step's array."""
    return tuple(shape[axis] for axis in held(len(shape)))
