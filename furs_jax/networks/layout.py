"""What operations that only arrange an array do to the indices of its axes; see `indices`."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from furs_jax.networks.indices import FIXED, ZERO, Graph, Nodes


class Value(NamedTuple):
    """An array of a computation: the nodes of its axes."""

    axes: tuple[Nodes, ...]
    constant: float | None = None  # where it is a number known beforehand, the same everywhere


def fixed_axes(variable: Any) -> Value:
    """An array whose indices mean their places."""
    return Value(tuple(np.full(size, FIXED) for size in variable.aval.shape))


def axis_of(value: Value, axis: int, size: int, graph: Graph) -> Nodes:
    """The nodes of a value's axis where it has `size` indices."""
    if value.constant == 0:
        return np.full(size, ZERO)
    nodes = value.axes[axis] if value.axes else None
    if nodes is not None and len(nodes) != size:
        graph.need(nodes)
        return None
    return nodes


def axes_without(value: Value, axes: Sequence[int]) -> list[Nodes]:
    return [nodes for axis, nodes in enumerate(value.axes) if axis not in axes]


def _broadcasting(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    (x, *_), shape = operands, equation.outvars[0].aval.shape
    axes: list[Nodes] = [None] * len(shape)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        axes[place] = axis_of(x, axis, shape[place], graph)
    return [Value(tuple(axes), x.constant)]


def _reshaping(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    """Axes from the last to the first, as few at a time as make up the same number of indices."""
    (x, *_), new = operands, list(equation.outvars[0].aval.shape)
    old, axes = list(equation.invars[0].aval.shape), []
    while old or new:
        parts, sizes = [old.pop()] if old else [], [new.pop()] if new else []
        while (more := math.prod(parts)) != (fewer := math.prod(sizes)):
            (parts if more < fewer else sizes).insert(0, (old if more < fewer else new).pop())
        nodes = list(x.axes[len(old) : len(old) + len(parts)])
        axes[:0] = nodes if parts == sizes else _regrouped(nodes, parts, sizes, graph)
    return [Value(tuple(axes), x.constant)]


def _regrouped(
    axes: list[Nodes], old: Sequence[int], new: Sequence[int], graph: Graph
) -> list[Nodes]:
    """Of axes that become others of as many indices."""
    if all(nodes is None for nodes in axes):
        return [None] * len(new)
    fixed: list[Nodes] = [np.full(size, FIXED) for size in new]
    moving = [i for i, n in enumerate(axes) if n is not None and np.any(n != FIXED)]
    if len(moving) == 1:
        shape = [size if axis == moving[0] else 1 for axis, size in enumerate(old)]
        every = np.broadcast_to(axes[moving[0]].reshape(shape), old).reshape(new)
        for axis, size in enumerate(new):
            along = np.moveaxis(every, axis, 0).reshape(size, -1)
            if np.all(along == along[:, :1]):  # of this axis alone
                return [*fixed[:axis], along[:, 0], *fixed[axis + 1 :]]
    graph.fix(*axes)
    return fixed


def _transposition(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    (x,) = operands
    return [x._replace(axes=tuple(x.axes[axis] for axis in equation.params["permutation"]))]


def _squeezing(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    axes = [axis % len(operands[0].axes) for axis in equation.params["dimensions"]]
    graph.need(*(operands[0].axes[axis] for axis in axes))
    return [operands[0]._replace(axes=tuple(axes_without(operands[0], axes)))]


def _reversal(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    turned = equation.params["dimensions"]
    return [_each_axis(operands[0], lambda axis, n: n[::-1] if axis in turned else n)]


def _slicing(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    params = equation.params
    limits = params["start_indices"], params["limit_indices"]
    parts = list(map(slice, *limits, params["strides"] or [1] * len(limits[0])))
    return [_each_axis(operands[0], lambda axis, nodes: nodes[parts[axis]])]


def _splitting(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    ends = [0, *itertools.accumulate(equation.params["sizes"])]
    return [
        _each_axis(
            operands[0], lambda axis, n, a=a, b=b: n[a:b] if axis == equation.params["axis"] else n
        )
        for a, b in itertools.pairwise(ends)
    ]


def _each_axis(x: Value, change: Callable[[int, np.ndarray], np.ndarray]) -> Value:
    axes = [n if n is None else change(axis, n) for axis, n in enumerate(x.axes)]
    return x._replace(axes=tuple(axes))


def _padding(equation: Any, operands: list[Value], graph: Graph) -> list[Value] | None:
    x, filling = operands
    filled, axes = ZERO if filling.constant == 0 else FIXED, []
    sizes = equation.invars[0].aval.shape
    for nodes, size, (low, high, between) in zip(
        x.axes, sizes, equation.params["padding_config"], strict=True
    ):
        if between:
            return None
        if low or high:
            nodes = np.full(size, FIXED) if nodes is None else nodes
            nodes = np.pad(nodes, (max(low, 0), max(high, 0)), constant_values=filled)
            nodes = nodes[max(-low, 0) : len(nodes) - max(-high, 0)]
        axes.append(nodes)
    return [Value(tuple(axes))]


def _concatenation(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    along, axes = equation.params["dimension"], []
    for axis, size in enumerate(equation.outvars[0].aval.shape):
        if axis != along:
            axes.append(graph.sum([axis_of(x, axis, size, graph) for x in operands]))
            continue
        parts = []
        for x, variable in zip(operands, equation.invars, strict=True):
            nodes = axis_of(x, axis, variable.aval.shape[axis], graph)
            parts.append(np.full(variable.aval.shape[axis], FIXED) if nodes is None else nodes)
        axes.append(np.concatenate(parts))
    return [Value(tuple(axes))]


def _counting(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    axis, fixed = equation.params["dimension"], fixed_axes(equation.outvars[0])
    return [Value(tuple(n if i == axis else None for i, n in enumerate(fixed.axes)))]


def _gathering(equation: Any, operands: list[Value], graph: Graph) -> list[Value]:
    """Axes that are taken whole stay as they are."""
    x, places = operands
    graph.fix(*places.axes)
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = list(fixed_axes(equation.outvars[0]).axes)
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    left = [axis for axis in range(len(sizes)) if axis not in gone]
    for axis, nodes in enumerate(x.axes):
        whole = sizes[axis] == equation.invars[0].aval.shape[axis] and axis in left
        if whole and axis not in numbers.start_index_map:
            axes[numbers.offset_dims[left.index(axis)]] = nodes
        else:
            graph.fix(nodes)
    return [Value(tuple(axes))]


def _adding(equation: Any, operands: list[Value], graph: Graph) -> list[Value] | None:
    """To a part of an array that begins at one known place."""
    (x, place, part), numbers = operands, equation.params["dimension_numbers"]
    along, shape = numbers.scatter_dims_to_operand_dims, equation.outvars[0].aval.shape
    known = not along or (len(along) == 1 and place.constant is not None)
    if not known or len(numbers.update_window_dims) < len(shape):
        return None
    axes = []
    for axis, (size, inner) in enumerate(zip(shape, equation.invars[2].aval.shape, strict=True)):
        added = axis_of(part, axis, inner, graph)
        if axis in along and inner < size:
            start = int(place.constant)
            added = np.full(inner, FIXED) if added is None else added
            added = np.pad(added, (start, size - inner - start), constant_values=ZERO)
        axes.append(graph.sum([axis_of(x, axis, size, graph), added]))
    return [Value(tuple(axes))]


LAYOUT = {
    "broadcast_in_dim": _broadcasting,
    "reshape": _reshaping,
    "transpose": _transposition,
    "squeeze": _squeezing,
    "rev": _reversal,
    "slice": _slicing,
    "split": _splitting,
    "pad": _padding,
    "concatenate": _concatenation,
    "iota": _counting,
    "gather": _gathering,
    "scatter-add": _adding,
}
