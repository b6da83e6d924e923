"""A program of fewer steps that computes the same, in the words that other programs have."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from furs_jax.export._steps import Constant, Program, Step, Tensor

Rule = Callable[[Step, Step], Step | None]  # a step and the one that alone reads it -> one of both


def simplify(program: Program, fold_batch_norms: bool = False) -> Program:
    """Without steps that nothing reads, with biases and means where they belong.

    Args:
      fold_batch_norms: a BatchNorm behind a convolution or a dense layer becomes a part of it. It
        computes the same, but for rounding, and can no longer be trained.
    """
    program = _fused(_read(program), [_biased, _averaged, _reshaped_once])
    return _fused(program, [_normalised]) if fold_batch_norms else program


def _read(program: Program) -> Program:
    """Without steps that nothing reads."""
    wanted, steps = {program.logits}, []
    for step in reversed(program.steps):
        if step.output in wanted:
            wanted |= {value for value in step.inputs if isinstance(value, Tensor)}
            steps.append(step)
    return program._replace(steps=steps[::-1])


def _fused(program: Program, rules: Sequence[Rule]) -> Program:
    readers, made, gone, steps = program.readers(), {}, set(), []
    for step in program.steps:
        for value in step.inputs:
            if value in made and readers[value] == 1:
                fused = next(filter(None, (rule(made[value], step) for rule in rules)), None)
                if fused:
                    gone.add(value)
                    step = fused
                    break
        made[step.output] = step
        steps.append(step)
    return program._replace(steps=[step for step in steps if step.output not in gone])


def _biased(first: Step, then: Step) -> Step | None:
    """A convolution or dense layer, and the sum with a number for each channel."""
    if first.kind not in ("conv", "linear") or len(first.inputs) > 2 or then.kind != "add":
        return None
    shape, bias = list(first.output.shape), _other(first, then)
    channels = 1 if first.kind == "conv" else -1
    alike = [1] * len(shape)
    alike[channels] = shape[channels]
    if not isinstance(bias, Constant) or list(bias.array.shape) not in ([], alike):
        return None
    values = np.broadcast_to(bias.array.reshape(-1), (shape[channels],)).astype(np.float32)
    inputs = (*first.inputs, Constant(values.copy(), bias.origin))
    return first._replace(inputs=inputs, output=then.output)


def _averaged(first: Step, then: Step) -> Step | None:
    """A sum over axes or windows, and the division by the number of its elements."""
    if then.kind != "div" or then.inputs[0] is not first.output:
        return None
    by = then.inputs[1].scalar if isinstance(then.inputs[1], Constant) else None
    if first.kind == "reduce_sum":
        count = math.prod(first.inputs[0].shape[axis] for axis in first.options["axes"])
    elif first.kind == "sum_pool" and not any(map(any, first.options["pads"])):
        count = math.prod(first.options["window"])
    else:
        return None
    kind = {"reduce_sum": "reduce_mean", "sum_pool": "mean_pool"}[first.kind]
    return first._replace(kind=kind, output=then.output) if by == count else None


def _reshaped_once(first: Step, then: Step) -> Step | None:
    if first.kind == then.kind == "reshape":
        return first._replace(output=then.output)
    return None


def _normalised(first: Step, then: Step) -> Step | None:
    """A convolution or dense layer, and the BatchNorm of its outputs."""
    if first.kind not in ("conv", "linear") or then.kind != "batch_norm":
        return None  # of two axes or four: channels are the second ones
    x, weights, *bias = first.inputs
    scale, shift, mean, var = (np.float64(given.array) for given in then.inputs[1:])
    factor = scale / np.sqrt(var + then.options["epsilon"])
    along = (-1, 1, 1, 1) if first.kind == "conv" else (1, -1)
    folded = np.float64(weights.array) * factor.reshape(along)
    before = np.float64(bias[0].array) if bias else 0.0
    shift = shift + (before - mean) * factor
    arrays = (folded.astype(np.float32), shift.astype(np.float32))
    return first._replace(inputs=(x, *map(Constant, arrays)), output=then.output)


def _other(first: Step, then: Step) -> Tensor | Constant | None:
    others = [x for x in then.inputs if x is not first.output]
    return others[0] if len(others) == 1 else None
