"""ONNX, of any number of images; onnxruntime and most else runs it."""

import functools
import json
import math
import pathlib
import re
from typing import Any

import numpy as np

from furs_jax.export import Format, Record
from furs_jax.export._lower import lower
from furs_jax.export._simplify import simplify
from furs_jax.export._steps import Constant, Program, Step, Tensor
from furs_jax.jobs.exported import MODEL
from furs_jax.jobs.predicting import TrainedNetwork

OPSET = 28
_COUNT = "N"  # how many images, in the names of axes

# Steps that are one operator of the same operands.
_OPERATORS = {
    **{name: name.title() for name in ("abs", "neg", "exp", "log", "tanh", "sqrt", "sign")},
    **{name: name.title() for name in ("floor", "ceil", "round", "erf", "sin", "cos", "not")},
    **{name: name.title() for name in ("add", "sub", "mul", "div", "max", "min", "pow", "where")},
    **{name: name.title() for name in ("and", "or", "xor", "sigmoid", "relu")},
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}
_REDUCTIONS = {
    f"reduce_{kind}": f"Reduce{kind.title()}" for kind in ("sum", "mean", "max", "min", "prod")
}


class OnnxFormat(Format):
    packages = ("onnx", "onnxruntime")
    runs_with = ("onnxruntime",)
    folds = True
    runner = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
numpy.save(sys.argv[2], session.run(None, {"images": numpy.load(sys.argv[1])})[0])
"""
    usage = """
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(None, {"images": images})
"""

    def write(
        self, found: TrainedNetwork, folder: pathlib.Path, record: Record, fold: bool
    ) -> None:
        import onnx

        program = simplify(lower(found), fold)
        model = _Writer().model(program, record)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, folder / f"{MODEL}.onnx")


class _Writer:
    """Nodes and arrays of one ONNX graph."""

    def __init__(self):
        self._nodes: list[Any] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._names: dict[Tensor, str] = {}
        self._taken = {"images", "logits"}

    def model(self, program: Program, record: Record) -> Any:
        from onnx import helper, numpy_helper

        self._names[program.images] = "images"
        for step in program.steps:
            self._write(step, "logits" if step.output is program.logits else None)
        whole = helper.make_graph(
            self._nodes,
            "network",
            [_described(program.images, "images")],
            [_described(program.logits, "logits")],
            [numpy_helper.from_array(x, name) for name, x in self._arrays.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        version = helper.find_min_ir_version_for([opset])
        model = helper.make_model(
            whole, opset_imports=[opset], ir_version=version, producer_name="furs_jax"
        )
        helper.set_model_props(model, {key: json.dumps(value) for key, value in record.items()})
        return model

    def _write(self, step: Step, name: str | None) -> None:
        output = name or self._new(step.name or step.kind)
        own = getattr(self, f"_{step.kind}_step", None)
        if own:
            own(step, output)
        elif step.kind in _REDUCTIONS:
            axes = self._array("axes", np.array(step.options["axes"], np.int64))
            self._add(_REDUCTIONS[step.kind], [step.inputs[0], axes], output, keepdims=0)
        else:
            self._add(_OPERATORS[step.kind], step.inputs, output)
        self._names[step.output] = output

    def _add(self, operator: str, inputs: Any, output: str, **attributes: Any) -> None:
        from onnx import helper

        names = list(map(self._name, inputs))
        self._nodes.append(helper.make_node(operator, names, [output], output, **attributes))

    def _name(self, x: Tensor | Constant | str) -> str:
        if isinstance(x, Constant):
            return self._array(x.origin or "constant", x.array)
        return self._names.get(x, x)

    def _new(self, name: str) -> str:
        """A name that no other array has; it is taken, then."""
        new = base = re.sub(r"[^\w/]", "_", name, flags=re.ASCII)
        number = 0
        while new in self._taken:
            number += 1
            new = f"{base}_{number}"
        self._taken.add(new)
        return new

    def _array(self, name: str, array: np.ndarray) -> str:
        name = self._new(name)
        self._arrays[name] = array
        return name

    def _cast_step(self, step: Step, output: str) -> None:
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(step.output.dtype)
        self._add("Cast", step.inputs, output, to=kind)

    def _rsqrt_step(self, step: Step, output: str) -> None:
        self._add("Sqrt", step.inputs, root := self._new(f"{output}_root"))
        self._add("Reciprocal", [root], output)

    def _reshape_step(self, step: Step, output: str) -> None:
        sizes = [-1 if size is None else size for size in step.output.shape]
        shape = self._array("shape", np.array(sizes, np.int64))
        self._add("Reshape", [*step.inputs, shape], output)

    def _expand_step(self, step: Step, output: str) -> None:
        # A length of 1 leaves the other one as it is: of a value, that of the images.
        sizes = np.array([1 if size is None else size for size in step.output.shape], np.int64)
        shape = self._array("shape", sizes)
        if isinstance(step.inputs[0], Constant) and None in step.output.shape:
            place = step.output.shape.index(None)
            parts = [self._array("shape", part) for part in (sizes[:place], sizes[place + 1 :])]
            shape = self._new("shape")
            self._add("Concat", [parts[0], self._count, parts[1]], shape, axis=0)
        self._add("Expand", [*step.inputs, shape], output)

    @functools.cached_property
    def _count(self) -> str:
        """How many images there are, of shape (1,)."""
        name = self._new("count")
        self._add("Shape", ["images"], name, start=0, end=1)
        return name

    def _permute_step(self, step: Step, output: str) -> None:
        self._add("Transpose", step.inputs, output, perm=step.options["order"])

    def _slice_step(self, step: Step, output: str) -> None:
        parts = step.options["parts"]
        columns = (*zip(*parts.values(), strict=True),)
        starts, stops, strides = (np.array(column, np.int64) for column in columns)
        arrays = (starts, stops, np.array(list(parts), np.int64), strides)
        self._add("Slice", [*step.inputs, *(self._array("part", x) for x in arrays)], output)

    def _pad_step(self, step: Step, output: str) -> None:
        widths = np.array(step.options["widths"], np.int64).T.reshape(-1)
        filling = np.array(step.options["filling"], step.output.dtype)
        arrays = (self._array("widths", widths), self._array("filling", filling))
        self._add("Pad", [*step.inputs, *arrays], output)

    def _concat_step(self, step: Step, output: str) -> None:
        self._add("Concat", step.inputs, output, axis=step.options["axis"])

    def _take_step(self, step: Step, output: str) -> None:
        places = self._array("places", step.options["places"].astype(np.int64))
        self._add("Gather", [*step.inputs, places], output, axis=step.options["axis"])

    def _linear_step(self, step: Step, output: str) -> None:
        if len(step.output.shape) == 2:
            self._add("Gemm", step.inputs, output)
            return
        x, weights, *bias = step.inputs
        product = self._new(f"{output}_product") if bias else output
        self._add("MatMul", [x, weights], product)
        if bias:
            self._add("Add", [product, *bias], output)

    def _einsum_step(self, step: Step, output: str) -> None:
        self._add("Einsum", step.inputs, output, equation=step.options["terms"])

    def _conv_step(self, step: Step, output: str) -> None:
        options = step.options
        window = {
            "strides": options["strides"],
            "pads": _pads(options),
            "dilations": options["dilations"],
            "group": options["groups"],
        }
        self._add("Conv", step.inputs, output, **window)

    def _batch_norm_step(self, step: Step, output: str) -> None:
        epsilon = step.options["epsilon"]
        self._add("BatchNormalization", step.inputs, output, epsilon=epsilon)

    def _max_pool_step(self, step: Step, output: str) -> None:
        dilations = step.options["dilations"]
        self._add("MaxPool", step.inputs, output, **_window(step), dilations=dilations)

    def _mean_pool_step(self, step: Step, output: str) -> None:
        self._add("AveragePool", step.inputs, output, **_window(step), count_include_pad=1)

    def _sum_pool_step(self, step: Step, output: str) -> None:
        self._mean_pool_step(step, mean := self._new(f"{output}_mean"))
        count = np.array(math.prod(step.options["window"]), step.output.dtype)
        self._add("Mul", [mean, self._array("count", count)], output)


def _window(step: Step) -> dict[str, Any]:
    options = step.options
    return {
        "kernel_shape": options["window"],
        "strides": options["strides"],
        "pads": _pads(options),
    }


def _pads(options: dict[str, Any]) -> list[int]:
    """All before, then all after."""
    return [side[place] for place in (0, 1) for side in options["pads"]]


def _described(x: Tensor, name: str) -> Any:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    shape = [_COUNT if size is None else size for size in x.shape]
    return helper.make_tensor_value_info(name, kind, shape)


PLUGIN = OnnxFormat
