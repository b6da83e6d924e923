"""Depthwise convolutions: on a CPU as sums of shifted products, elsewhere XLA's own.

On a CPU XLA computes grouped convolutions number by number. A sum over the kernel's taps, of the
images shifted times the tap's weights, is a loop over contiguous channels instead.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]  # of rows and of columns; of a padding: before and after


def depthwise_convolution(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Sequence[Pair],
    **_: Any,
) -> jax.Array:
    """Convolves each channel with a kernel of its own; can be differentiated once, backwards.

    For `nn.Conv(..., conv_general_dilated=depthwise_convolution)`.

    Args:
      x: images (N, H, W, C).
      kernel: shape (kh, kw, 1, C), of x's dtype.
      window_strides, padding: of rows and columns, as `jax.lax.conv_general_dilated` takes them.
      **_: what else `nn.Conv` says: layout and groups, which are these, and no dilation.

    Returns:
      Shape (N, H', W', C), of x's dtype.
    """
    return _convolve(x, kernel, tuple(window_strides), tuple(map(tuple, padding)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    return _by_platform(_shifted, _grouped, strides, padding)(x, kernel)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: Pair, padding: tuple[Pair, Pair], given: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    gradients = _by_platform(_shifted_gradients, _grouped_gradients, strides, padding)
    return gradients(*given, dy)


_convolve.defvjp(_forward, _backward)


def _by_platform(on_cpu: Callable, elsewhere: Callable, *options: Any) -> Callable:
    return functools.partial(
        lax.platform_dependent,
        cpu=lambda *arrays: on_cpu(*arrays, *options),
        default=lambda *arrays: elsewhere(*arrays, *options),
    )


def _grouped(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _grouped_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> tuple[jax.Array, jax.Array]:
    by_x = jax.linear_transpose(lambda x: _grouped(x, kernel, strides, padding), x)
    by_kernel = jax.linear_transpose(lambda kernel: _grouped(x, kernel, strides, padding), kernel)
    return *by_x(dy), *by_kernel(dy)


class _Axis(NamedTuple):
    """Rows or columns. A tap reads the input at `output * stride + tap - before`."""

    inputs: int
    taps: int
    stride: int
    before: int  # zeros of the padding
    after: int

    @property
    def outputs(self) -> int:
        return (self.inputs + self.before + self.after - self.taps) // self.stride + 1

    def read(self, tap: int) -> slice:
        """Of the padded input, by the tap, for all outputs."""
        return slice(tap, tap + (self.outputs - 1) * self.stride + 1, self.stride)

    @property
    def phases(self) -> list[list[Pair]]:
        """Taps that read the input at m * stride + phase, and how far from m what they make is."""
        ways: list[list[Pair]] = [[] for _ in range(self.stride)]
        for tap, phase in product(range(self.taps), range(self.stride)):
            distance, rest = divmod(phase + self.before - tap, self.stride)
            if rest == 0:
                ways[phase].append((tap, distance))
        return ways

    @property
    def period(self) -> int:
        """Inputs of a phase, the last of which may lie behind the image."""
        return -(-self.inputs // self.stride)

    @property
    def beyond(self) -> Pair:
        """How many outputs that there are not, before and after, the phases' taps refer to."""
        distances = [distance for phase in self.phases for _, distance in phase]
        before, after = -min(distances), max(distances) + self.period - self.outputs
        return max(0, before), max(0, after)


def _axes(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> tuple[_Axis, _Axis]:
    sizes, taps = x.shape[1:3], kernel.shape[:2]
    return tuple(_Axis(sizes[n], taps[n], strides[n], *padding[n]) for n in range(2))


def _shifted(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> jax.Array:
    rows, columns = _axes(x, kernel, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return _sum_of_products(
        (x[:, rows.read(i), columns.read(j)], kernel[i : i + 1, j : j + 1])
        for i, j in product(range(rows.taps), range(columns.taps))
    ).astype(x.dtype)


def _shifted_gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Pair, padding: tuple[Pair, Pair]
) -> tuple[jax.Array, jax.Array]:
    axes = _axes(x, kernel, strides, padding)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))  # as the forward pass has it already
    return _input_gradient(kernel, dy, *axes), _kernel_gradient(padded, dy, *axes)


def _input_gradient(kernel: jax.Array, dy: jax.Array, rows: _Axis, columns: _Axis) -> jax.Array:
    """Inputs at every stride-th place are read by the same taps: each phase is a convolution."""
    padded = jnp.pad(dy, ((0, 0), rows.beyond, columns.beyond, (0, 0)))
    above, left = rows.beyond[0], columns.beyond[0]

    def phase(down: list[Pair], right: list[Pair]) -> jax.Array:
        if not down or not right:  # a stride beyond the kernel's size leaves inputs unread
            return jnp.zeros((len(dy), rows.period, columns.period, dy.shape[-1]), dy.dtype)
        return _sum_of_products(
            (
                padded[:, above + y :, left + x :][:, : rows.period, : columns.period],
                kernel[i : i + 1, j : j + 1],
            )
            for (i, y), (j, x) in product(down, right)
        ).astype(dy.dtype)

    if rows.stride == columns.stride == 1:
        return phase(rows.phases[0], columns.phases[0])
    # (N, period of rows, phases, period of columns, phases, C)
    dx = [jnp.stack([phase(y, x) for x in columns.phases], axis=3) for y in rows.phases]
    dx = jnp.stack(dx, axis=2).reshape(len(dy), -1, columns.period * columns.stride, dy.shape[-1])
    return dx[:, : rows.inputs, : columns.inputs]


def _kernel_gradient(padded: jax.Array, dy: jax.Array, rows: _Axis, columns: _Axis) -> jax.Array:
    """For each tap the sum over images, rows and columns of the products.

    XLA on a CPU adds number by number where it multiplies and reduces in one loop. So rows are
    added elementwise, for all taps of a column at once, and what is left by a matrix product.
    """
    of_tap = jnp.repeat(jnp.eye(rows.taps, dtype=_wide(dy.dtype)), columns.outputs, axis=1)
    of_tap = jnp.tile(of_tap, (1, len(dy)))

    def column(tap: int) -> jax.Array:
        read = padded[:, :, columns.read(tap)]
        sums = _sum_of_products(
            (read[:, y * rows.stride :][:, : rows.taps], dy[:, y : y + 1])
            for y in range(rows.outputs)
        )  # (N, taps, W', C)
        return of_tap @ sums.reshape(-1, sums.shape[-1])

    kernel = jnp.stack([column(tap) for tap in range(columns.taps)], axis=1)
    return kernel[:, :, None].astype(dy.dtype)


def _sum_of_products(pairs: Iterable[tuple[jax.Array, jax.Array]]) -> jax.Array:
    products = (a.astype(_wide(a.dtype)) * b.astype(_wide(b.dtype)) for a, b in pairs)
    return functools.reduce(operator.add, products)


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """In which sums are taken: float32 or what is wider."""
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
