"""Operations that move or sum elements, as steps. Rules as in `_elements`."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from furs_jax.export._known import Known, NoStepError, shape_of
from furs_jax.export._steps import Constant, Tensor, held, laid, place_of

Operand = Tensor | Known


def _shape(equation: Any) -> tuple:
    return shape_of(equation.outvars[0])


def _broadcasting(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x, *_), shape = operands, _shape(equation)
    places = equation.params["broadcast_dimensions"]
    axes, order = [places[axis] for axis in held(len(x.shape))], held(len(shape))
    x = write.permuted(x, axes, [axis for axis in order if axis in axes])
    sizes = dict(zip([axis for axis in order if axis in axes], x.shape, strict=True))
    x = write.reshaped(x, tuple(sizes.get(axis, 1) for axis in order))
    wanted = laid(shape)
    return x if x.shape == wanted else write.emit("expand", [x], wanted, x.dtype)


def _reshaping(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x, *_), shape = operands, _shape(equation)
    x = write.permuted(x, held(len(x.shape)), range(len(x.shape)))
    return write.permuted(write.reshaped(x, shape), range(len(shape)), held(len(shape)))


def _transposition(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,), order = operands, equation.params["permutation"]
    return write.permuted(x, held(len(order)), [order[axis] for axis in held(len(order))])


def _squeezing(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,), rank = operands, len(equation.invars[0].aval.shape)
    gone = [axis % rank for axis in equation.params["dimensions"]]
    left = [axis for axis in held(rank) if axis not in gone]
    x = write.reshaped(x, tuple(x.shape[place_of(axis, rank)] for axis in left))
    return _in_order(write, x, left)


def _in_order(write: Any, x: Tensor, axes: Sequence[int]) -> Tensor:
    """With the axes of these numbers, of an array that had more, as a step has them."""
    return write.permuted(x, axes, laid(sorted(axes)))


def _slicing(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    params, sizes = equation.params, equation.invars[0].aval.shape
    strides = params["strides"] or [1] * len(sizes)
    parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return _part(write, operands[0], list(parts), equation, 0)


def _splitting(write: Any, equation: Any, operands: Sequence[Operand]) -> list[Tensor]:
    sizes, axis, begin, found = equation.invars[0].aval.shape, equation.params["axis"], 0, []
    for number, length in enumerate(equation.params["sizes"]):
        parts = [(0, size, 1) for size in sizes]
        parts[axis] = (begin, begin + length, 1)
        found.append(_part(write, operands[0], parts, equation, number))
        begin += length
    return found


def _part(write: Any, x: Tensor, parts: list[tuple], equation: Any, output: int) -> Tensor:
    sizes, shape = equation.invars[0].aval.shape, shape_of(equation.outvars[output])
    cut = {
        place_of(axis, len(sizes)): tuple(map(int, part))
        for axis, part in enumerate(parts)
        if part != (0, sizes[axis], 1)
    }
    return write.emit("slice", [x], laid(shape), x.dtype, parts=cut) if cut else x


def _reversal(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,), rank = operands, len(equation.invars[0].aval.shape)
    places = [place_of(axis, rank) for axis in equation.params["dimensions"]]
    parts = {place: np.arange(x.shape[place])[::-1] for place in places if x.shape[place]}
    if len(parts) < len(places):
        raise NoStepError("mixes images with each other")
    for place, order in parts.items():
        x = write.emit("take", [x], x.shape, x.dtype, axis=place, places=order)
    return x


def _padding(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x, filling), config = operands, laid(equation.params["padding_config"])
    if any(between for *_, between in config) or filling.scalar is None:
        raise NoStepError("pads between elements")
    cuts = {
        place: (max(-low, 0), size + min(high, 0), 1)
        for place, (size, (low, high, _)) in enumerate(zip(x.shape, config, strict=True))
        if low < 0 or high < 0
    }
    widths = [(max(low, 0), max(high, 0)) for low, high, _ in config]
    shape = list(x.shape)
    for place, (start, stop, _) in cuts.items():
        shape[place] = stop - start
    if cuts:
        x = write.emit("slice", [x], shape, x.dtype, parts=cuts)
    if not any(map(any, widths)):
        return x
    return write.emit(
        "pad", [x], laid(_shape(equation)), x.dtype, widths=widths, filling=filling.scalar
    )


def _concatenation(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    shape = _shape(equation)
    place = place_of(equation.params["dimension"], len(shape))
    dtype = equation.outvars[0].aval.dtype
    return write.emit("concat", map(write.whole, operands), laid(shape), dtype, axis=place)


def _stacking(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    shape, axis = _shape(equation), equation.params["axis"]
    order = held(len(shape))
    values = []
    for x in map(write.value, operands):
        axes = [a + (a >= axis) for a in held(len(x.shape))]
        x = write.permuted(x, axes, [a for a in order if a != axis])
        values.append(write.reshaped(x, tuple(1 if a == axis else shape[a] for a in order)))
    place = place_of(axis, len(shape))
    return write.emit("concat", values, laid(shape), values[0].dtype, axis=place)


def _tiling(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,), reps = operands, laid(tuple(equation.params["reps"]))
    for place, count in enumerate(reps):
        if count == 1:
            continue
        if x.shape[place] is None:
            raise NoStepError("mixes images with each other")
        shape = (*x.shape[:place], x.shape[place] * count, *x.shape[place + 1 :])
        x = write.emit("concat", [x] * count, shape, x.dtype, axis=place)
    return x


def _gathering(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    """Of known places along one axis, all else whole; or of one part, as of x[:, 2:5, 0]."""
    x, places = operands
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    whole, gone = equation.invars[0].aval.shape, tuple(numbers.collapsed_slice_dims)
    if not isinstance(places, Known) or numbers.operand_batching_dims:
        raise NoStepError("takes elements at places that are computed")
    starts, x = places.full(), write.value(x)
    if starts.ndim == 1:
        return _window(write, x, equation, dict(zip(numbers.start_index_map, starts, strict=True)))
    cut = [axis for axis in range(len(sizes)) if sizes[axis] != whole[axis] or axis in gone]
    if starts.ndim != 2 or not cut == list(numbers.start_index_map) == list(gone) or len(gone) > 1:
        raise NoStepError("takes elements at places along several axes")
    (axis,), rank, shape = gone, len(sizes), _shape(equation)
    index = np.clip(starts.reshape(-1), 0, whole[axis] - 1)
    result, place = list(x.shape), place_of(axis, rank)
    result[place] = len(index)
    x = write.emit("take", [x], result, x.dtype, axis=place, places=index)
    # Axes of the result: those taken whole at offset_dims, the places' at what is left.
    (at,) = set(range(rank)) - set(numbers.offset_dims)
    beside = [a for a in range(rank) if a != axis]
    names = dict(zip(numbers.offset_dims, beside, strict=True)) | {at: axis}
    return write.permuted(x, held(rank), [names[a] for a in held(len(shape))])


def _window(write: Any, x: Tensor, equation: Any, starts: dict[int, Any]) -> Tensor:
    """A part of the slice's size, from where it lies within the array."""
    sizes, rank = equation.params["slice_sizes"], len(x.shape)
    whole, shape, parts = equation.invars[0].aval.shape, list(x.shape), {}
    for axis, start in starts.items():
        place, length = place_of(axis, rank), int(sizes[axis])
        begin = min(max(int(start), 0), whole[axis] - length)
        parts[place], shape[place] = (begin, begin + length, 1), length
    x = write.emit("slice", [x], shape, x.dtype, parts=parts)
    gone = equation.params["dimension_numbers"].collapsed_slice_dims
    left = [axis for axis in held(rank) if axis not in gone]
    x = write.reshaped(x, tuple(x.shape[place_of(axis, rank)] for axis in left))
    return _in_order(write, x, left)


def _matrix_product(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (left, right), shape = operands, _shape(equation)
    (summed, with_), (batch, beside) = equation.params["dimension_numbers"]
    rank = len(left.shape)
    plain = rank != 4 and summed == (rank - 1,) and len(right.shape) == 2
    if plain and not batch and isinstance(left, Tensor) and isinstance(right, Known):
        matrix = right.full() if with_ == (0,) else right.full().T
        weights = Constant(np.ascontiguousarray(matrix), right.origin)
        return write.emit("linear", [left, weights], shape, name=layer_of(right.origin))
    letters = iter(string.ascii_lowercase)
    ranks = [len(v.aval.shape) for v in equation.invars]
    names = [[""] * rank for rank in ranks]
    for a, b in (*zip(batch, beside, strict=True), *zip(summed, with_, strict=True)):
        names[0][a] = names[1][b] = next(letters)
    for side in names:
        side[:] = [name or next(letters) for name in side]
    result = [names[0][a] for a in batch]
    result += [n for a, n in enumerate(names[0]) if a not in (*batch, *summed)]
    result += [n for b, n in enumerate(names[1]) if b not in (*beside, *with_)]
    sides = ["".join(laid(side)) for side in names]
    terms = f"{','.join(sides)}->{''.join(laid(result))}"
    return write.emit("einsum", map(write.whole, operands), laid(shape), terms=terms)


def layer_of(origin: str) -> str:
    """The module whose weights they are: "stem/conv" of "params/stem/conv/kernel"."""
    return "/".join(origin.split("/")[1:-1])


def _convolution(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x, kernel), params = operands, equation.params
    numbers = params["dimension_numbers"]
    if len(numbers.lhs_spec) != 4 or set(params["lhs_dilation"]) != {1}:
        raise NoStepError("is a convolution over other than two axes, or transposed")
    if params["batch_group_count"] != 1 or not isinstance(kernel, Known):
        raise NoStepError("is a convolution whose kernel is computed")
    x = write.permuted(x, held(4), numbers.lhs_spec)
    weights = np.ascontiguousarray(kernel.full().transpose(numbers.rhs_spec))
    sizes = _shape(equation)
    y = write.emit(
        "conv",
        [x, Constant(weights, kernel.origin)],
        [sizes[axis] for axis in numbers.out_spec],
        name=layer_of(kernel.origin),
        strides=tuple(params["window_strides"]),
        pads=tuple(map(tuple, params["padding"])),
        dilations=tuple(params["rhs_dilation"]),
        groups=int(params["feature_group_count"]),
    )
    return write.permuted(y, numbers.out_spec, held(4))


def _reduction(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    (x,) = operands
    rank, axes = len(equation.invars[0].aval.shape), equation.params["axes"]
    places = sorted(place_of(axis, rank) for axis in axes)
    if any(x.shape[place] is None for place in places):
        raise NoStepError("mixes images with each other")
    left = [axis for axis in held(rank) if axis not in axes]
    shape = [size for place, size in enumerate(x.shape) if place not in places]
    kind = equation.primitive.name
    return _in_order(write, write.emit(kind, [x], shape, x.dtype, axes=tuple(places)), left)


def _windows(write: Any, equation: Any, operands: Sequence[Operand]) -> Tensor:
    x, params, kind = operands[0], equation.params, equation.primitive.name.rpartition("_")[2]
    rank = len(params["window_dimensions"])
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    window, strides, pads, dilations = (laid(tuple(params[name])) for name in names)
    of_images_and_channels = (window[:2], strides[:2], pads[:2])
    if (
        rank != 4
        or of_images_and_channels != ((1, 1), (1, 1), ((0, 0), (0, 0)))
        or set(params["base_dilation"]) != {1}
    ):
        raise NoStepError("is a pooling over other than two axes")
    if kind != "max" and set(dilations) != {1}:
        raise NoStepError("is a dilated pooling")
    options = {"window": tuple(window[2:]), "strides": tuple(strides[2:])}
    options |= {"pads": tuple(map(tuple, pads[2:])), "dilations": tuple(dilations[2:])}
    shape = laid(_shape(equation))
    if kind == "min":
        turned = write.emit("neg", [x], x.shape, x.dtype)
        return write.emit("neg", [write.emit("max_pool", [turned], shape, **options)], shape)
    return write.emit(f"{kind}_pool", [x], shape, x.dtype, **options)


MOVES = {
    "broadcast_in_dim": _broadcasting,
    "reshape": _reshaping,
    "transpose": _transposition,
    "squeeze": _squeezing,
    "slice": _slicing,
    "split": _splitting,
    "rev": _reversal,
    "pad": _padding,
    "concatenate": _concatenation,
    "stack": _stacking,
    "tile": _tiling,
    "gather": _gathering,
    "dot_general": _matrix_product,
    "conv_general_dilated": _convolution,
    **{f"reduce_{kind}": _reduction for kind in ("sum", "max", "min", "prod")},
    **{f"reduce_window_{kind}": _windows for kind in ("sum", "max", "min")},
}
