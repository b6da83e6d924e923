"""A program as the source of a PyTorch module: layers with names, and a forward pass."""

import keyword
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from furs_jax.export._steps import Constant, Program, Step, Tensor

_LONGEST = 44  # letters of an expression within another one

_CALLS = {
    **{name: f"torch.{name}({{}})" for name in ("abs", "exp", "log", "tanh", "sqrt", "rsqrt")},
    **{name: f"torch.{name}({{}})" for name in ("sign", "floor", "ceil", "round", "erf", "sin")},
    **{name: f"torch.{name}({{}})" for name in ("cos", "sigmoid")},
    "relu": "F.relu({})",
    "pow": "torch.pow({}, {})",
    "where": "torch.where({}, {}, {})",
    "not": "torch.logical_not({})",
}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
_SIGNS = _ARITHMETIC | {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MEANS = {"reduce_sum": "sum", "reduce_mean": "mean"}
_REDUCTIONS = _MEANS | {"reduce_max": "amax", "reduce_min": "amin", "reduce_prod": "prod"}
# What an attribute of a module can't be called.
# Steps that are called on their operand, as in x.reshape(...).
_METHODS = ("cast", "reshape", "expand", "permute", "slice", "take", "max", "min", "neg")
# What no layer is called: what every module has, and what the source says.
_TAKEN = {
    *("T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init"),
    *("children", "compile", "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr"),
    *("float", "forward", "get_buffer", "get_extra_state", "get_parameter", "get_submodule"),
    *("half", "ipu", "load_state_dict", "modules", "mtia", "parameters", "requires_grad_"),
    *("set_extra_state", "set_submodule", "share_memory", "state_dict", "to", "to_empty"),
    *("train", "training", "type", "xpu", "zero_grad", "images", "x", "F", "nn", "torch"),
    *("max", "min", "slice"),
    *("self"),
}


class Source:
    """The parts of a module's source, and its state.

    Attributes:
      state: name -> array, of the module's state_dict.
    """

    def __init__(self, program: Program):
        self.state: dict[str, np.ndarray] = {}
        self._layers: list[str] = []
        self._lines: list[str] = []
        self._texts: dict[Tensor, str] = {program.images: "images"}
        self._attributes, self._variables = set(_TAKEN), set(_TAKEN)
        self._write(program)

    def layers(self) -> str:
        return textwrap.indent("\n".join(self._layers), " " * 8)

    def forward(self) -> str:
        return textwrap.indent("\n".join(self._lines), " " * 8)

    def _write(self, program: Program) -> None:
        """What the next step alone reads stays within its expression, or is called x."""
        texts = self._texts
        readers, inner = program.readers(), None  # a value whose expression is in no line yet
        for step, after in zip(program.steps, [*program.steps[1:], None], strict=True):
            if inner and len(texts[inner]) > _LONGEST:
                self._lines.append(f"x = {texts[inner]}")
                texts[inner] = "x"
            texts[step.output] = text = self._expression(step)
            inner = step.output
            if step.output is program.logits:
                self._lines.append(f"return {text}")
            elif readers[inner] > 1 or inner not in after.inputs:
                texts[inner] = _name(step.name or step.kind, self._variables)
                self._lines.append(f"{texts[inner]} = {text}")
                inner = None

    def _layer(self, step: Step, call: str, state: dict[str, np.ndarray]) -> str:
        name = _name(step.name or step.kind, self._attributes)
        self._layers.append(f"self.{name} = nn.{call}")
        self.state |= {f"{name}.{key}": array for key, array in state.items()}
        return f"self.{name}"

    def _buffer(self, array: np.ndarray, name: str) -> str:
        name, kind = (
            _name(name, self._attributes),
            {"i": "torch.long", "b": "torch.bool"}.get(array.dtype.kind),
        )
        given = f", dtype={kind}" if kind else ""
        shape = ", ".join(map(str, array.shape))
        zeros = f"torch.zeros(({shape}{',' * (array.ndim == 1)}){given})"
        self._layers.append(f'self.register_buffer("{name}", {zeros})')
        self.state[name] = array
        return f"self.{name}"

    def _text(self, x: Tensor | Constant, apart: bool = False) -> str:
        """Of an operand; `apart`: so that signs around it leave it whole."""
        if isinstance(x, Constant):
            return self._array(x) if x.scalar is None else _literal(x.scalar)
        text = self._texts[x]
        return f"({text})" if apart and self._signs(text) else text

    def _array(self, x: Tensor | Constant) -> str:
        """Of an operand, as a tensor even where it has one value."""
        if isinstance(x, Tensor):
            return self._texts[x]
        return self._buffer(x.array, x.origin.partition("/")[2] or "constant")

    @staticmethod
    def _signs(text: str) -> bool:
        """Whether it has a sign outside of brackets."""
        depth = 0
        for letter in text:
            depth += (letter in "([") - (letter in ")]")
            if depth == 0 and letter == " ":
                return True
        return text.startswith("-")

    def _expression(self, step: Step) -> str:
        kind = "reduction" if step.kind in _REDUCTIONS else step.kind
        own = getattr(self, f"_{kind}_step", None)
        if own:
            apart = step.kind in _METHODS or kind == "reduction"
            return own(step, *(self._text(x, apart) for x in _values(step)))
        sides = [self._text(x, apart=step.kind in _SIGNS) for x in step.inputs]
        sign = _SIGNS.get(step.kind)
        return f" {sign} ".join(sides) if sign else _CALLS[step.kind].format(*sides)

    def _neg_step(self, step: Step, x: str) -> str:
        return f"-{x}"

    def _max_step(self, step: Step, *sides: str) -> str:
        return self._limited(step, sides, "maximum", "min")

    def _min_step(self, step: Step, *sides: str) -> str:
        return self._limited(step, sides, "minimum", "max")

    def _limited(self, step: Step, values: tuple[str, ...], call: str, limit: str) -> str:
        constants = [x for x in step.inputs if isinstance(x, Constant)]
        if constants and constants[0].scalar is not None:
            return f"{values[0]}.clamp({limit}={_literal(constants[0].scalar)})"
        return f"torch.{call}({', '.join((*values, *(self._text(x) for x in constants)))})"

    def _cast_step(self, step: Step, x: str) -> str:
        name = {"bool": "bool", "float32": "float"}.get(step.output.dtype.name)
        return f"{x}.{name}()" if name else f"{x}.to(torch.{step.output.dtype.name})"

    def _reshape_step(self, step: Step, x: str) -> str:
        return f"{x}.reshape({_sizes(step.output.shape, '-1')})"

    def _expand_step(self, step: Step, *values: str) -> str:
        if values:
            return f"{values[0]}.expand({_sizes(step.output.shape, '-1')})"
        (constant,) = step.inputs
        count = _sizes(step.output.shape, "len(images)")
        if constant.scalar is not None:
            kind = f", dtype=torch.{step.output.dtype.name}, device=images.device"
            return f"torch.full(({count}), {_literal(constant.scalar)}{kind})"
        return f"{self._text(constant)}.expand({count})"

    def _permute_step(self, step: Step, x: str) -> str:
        return f"{x}.permute({', '.join(map(str, step.options['order']))})"

    def _slice_step(self, step: Step, x: str) -> str:
        parts = step.options["parts"]
        texts = []
        for place in range(max(parts) + 1):
            start, stop, stride = parts.get(place, (0, "", 1))
            texts.append(f"{start or ''}:{stop}" + (f":{stride}" if stride != 1 else ""))
        return f"{x}[{', '.join(texts)}]"

    def _pad_step(self, step: Step, x: str) -> str:
        filling = step.options["filling"]
        given = f", value={_literal(filling)}" if filling else ""
        return _padded(x, step.options["widths"], given)

    def _concat_step(self, step: Step, *_: str) -> str:
        values = ", ".join(map(self._array, step.inputs))
        return f"torch.cat([{values}], dim={step.options['axis']})"

    def _take_step(self, step: Step, x: str) -> str:
        places = self._buffer(step.options["places"].astype(np.int64), f"{step.name or 'places'}")
        return f"{x}.index_select({step.options['axis']}, {places})"

    def _reduction_step(self, step: Step, x: str) -> str:
        call, axes = _REDUCTIONS[step.kind], step.options["axes"]
        if call == "prod":  # takes one axis at a time
            return x + "".join(f".prod(dim={axis})" for axis in axes[::-1])
        return f"{x}.{call}(dim={axes if len(axes) > 1 else axes[0]})"

    def _einsum_step(self, step: Step, *_: str) -> str:
        values = ", ".join(map(self._array, step.inputs))
        return f'torch.einsum("{step.options["terms"]}", {values})'

    def _linear_step(self, step: Step, x: str) -> str:
        _, weights, *bias = step.inputs
        inputs, outputs = weights.array.shape
        state = _weights(weights.array.T, bias)
        given = "" if bias else ", bias=False"
        return f"{self._layer(step, f'Linear({inputs}, {outputs}{given})', state)}({x})"

    def _conv_step(self, step: Step, x: str) -> str:
        _, weights, *bias = step.inputs
        options, array = step.options, weights.array
        given = [array.shape[1] * options["groups"], array.shape[0], _pair(array.shape[2:])]
        x, pads = self._pads(x, options["pads"])
        for name, usual in (("strides", (1, 1)), ("pads", (0, 0)), ("dilations", (1, 1))):
            value = pads if name == "pads" else options[name]
            if value != usual:
                key = {"strides": "stride", "pads": "padding", "dilations": "dilation"}[name]
                given.append(f"{key}={_pair(value)}")
        given += [f"groups={options['groups']}"] if options["groups"] != 1 else []
        given += [] if bias else ["bias=False"]
        call = f"Conv2d({', '.join(map(str, given))})"
        return f"{self._layer(step, call, _weights(array, bias))}({x})"

    @staticmethod
    def _pads(x: str, pads: Any, filling: str = "", most: Any = None) -> tuple[str, Any]:
        """Padded beforehand where a layer can't, and what the layer pads on both sides."""
        alike = all(low == high >= 0 for low, high in pads)
        if alike and (most is None or all(p[0] <= m for p, m in zip(pads, most, strict=True))):
            return x, tuple(low for low, _ in pads)
        return _padded(x, [(0, 0), (0, 0), *pads], filling), (0, 0)

    def _batch_norm_step(self, step: Step, x: str) -> str:
        names = ("weight", "bias", "running_mean", "running_var")
        state = {name: c.array for name, c in zip(names, step.inputs[1:], strict=True)}
        state["num_batches_tracked"] = np.zeros((), np.int64)
        width, options = step.output.shape[1], step.options
        given = f"{width}, eps={options['epsilon']!r}, momentum={round(options['momentum'], 6)!r}"
        call = f"BatchNorm{'2d' if len(step.output.shape) == 4 else '1d'}({given})"
        return f"{self._layer(step, call, state)}({x})"

    def _max_pool_step(self, step: Step, x: str) -> str:
        options = step.options
        half = [size // 2 for size in options["window"]]
        x, pads = self._pads(x, options["pads"], ', value=-float("inf")', half)
        given = f"{_pair(options['window'])}, {_pair(options['strides'])}, {_pair(pads)}"
        if options["dilations"] != (1, 1):
            given += f", {_pair(options['dilations'])}"
        return f"F.max_pool2d({x}, {given})"

    def _mean_pool_step(self, step: Step, x: str, more: str = "") -> str:
        options = step.options
        x, _ = self._pads(x, options["pads"], most=(0, 0))
        return f"F.avg_pool2d({x}, {_pair(options['window'])}, {_pair(options['strides'])}{more})"

    def _sum_pool_step(self, step: Step, x: str) -> str:
        return self._mean_pool_step(step, x, ", divisor_override=1")


def _name(base: str, taken: set[str]) -> str:
    """An identifier that nothing else has; it is taken, then."""
    plain = re.sub(r"\W", "_", base, flags=re.ASCII).strip("_") or "layer"
    odd = (
        plain[0].isdigit() or plain.startswith(("register_", "named_")) or keyword.iskeyword(plain)
    )
    plain = f"layer_{plain}" if odd else plain
    names = (plain, *(f"{plain}_{n}" for n in range(1, len(taken) + 2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _weights(array: np.ndarray, bias: Sequence[Constant]) -> dict[str, np.ndarray]:
    return {"weight": array} | ({"bias": bias[0].array} if bias else {})


def _values(step: Step) -> list[Tensor]:
    return [x for x in step.inputs if isinstance(x, Tensor)]


def _literal(value: float | int | bool) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _pair(sizes: Any) -> str:
    first, second = sizes
    return str(first) if first == second else f"({first}, {second})"


def _sizes(shape: Any, count: str) -> str:
    return ", ".join(count if size is None else str(size) for size in shape)


def _padded(x: str, widths: Any, given: str) -> str:
    """By a call that counts axes from the last one."""
    flat = [side for pair in reversed(list(widths)) for side in pair]
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return f"F.pad({x}, ({', '.join(map(str, flat))}){given})"
