"""Depthwise convolutions against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.networks import blocks
from furs_jax.networks.depthwise import depthwise_convolution
from furs_jax.networks.memory import peak_bytes
from furs_jax.networks.products import traced_macs
from tests.conftest import random_variables, tiny_mbconv


def _grouped(x, kernel, strides, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _arrays(kernel, size, channels=5, images=3):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(images, *size, channels)), rng.normal(size=(*kernel, 1, channels))
    return jnp.asarray(x, jnp.float32), jnp.asarray(weights, jnp.float32)


@pytest.mark.parametrize(
    ("kernel", "strides", "size", "padding", "dtype"),
    [
        ((3, 3), (1, 1), (8, 8), ((1, 1), (1, 1)), "float32"),
        ((3, 3), (2, 2), (8, 7), ((1, 1), (1, 1)), "bfloat16"),
        ((5, 5), (1, 1), (7, 9), ((2, 2), (2, 2)), "bfloat16"),
        ((5, 5), (2, 2), (9, 8), ((2, 2), (2, 2)), "float32"),
        ((7, 7), (1, 1), (4, 1), ((3, 3), (3, 3)), "float32"),
        ((7, 7), (2, 2), (5, 6), ((3, 3), (3, 3)), "float32"),
        # Not the networks', but what is right for these is right for any.
        ((2, 3), (3, 1), (7, 8), ((0, 1), (2, 0)), "float32"),
        ((1, 1), (2, 2), (6, 5), ((0, 0), (0, 0)), "float32"),
    ],
)
def test_values_and_gradients_are_those_of_the_grouped_convolution(
    kernel, strides, size, padding, dtype
):
    x, weights = (array.astype(dtype) for array in _arrays(kernel, size))
    exact, pull_exact = jax.vjp(
        lambda *arrays: _grouped(*arrays, strides, padding),
        *(array.astype(jnp.float32) for array in (x, weights)),
    )
    y, pull = jax.vjp(lambda *arrays: depthwise_convolution(*arrays, strides, padding), x, weights)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), dtype)
    # One rounding to bfloat16, after sums in float32.
    tolerance = 1e-5 if dtype == "float32" else 2.0**-8
    for ours, theirs in zip(
        (y, *pull(dy)), (exact, *pull_exact(dy.astype(jnp.float32))), strict=True
    ):
        assert (ours.dtype, ours.shape) == (dtype, theirs.shape)
        scale = float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), theirs, rtol=tolerance, atol=1e-6 * scale
        )


def _loss(x, weights):
    y = depthwise_convolution(x, weights, (2, 2), ((1, 1), (1, 1)))
    return jnp.sum(y * y)


def test_stacks_of_images_and_of_kernels_are_mapped():
    x, weights = _arrays((3, 3), (6, 5), images=8)
    x = x.reshape(4, 2, *x.shape[1:])
    several = jnp.stack([weights, 2 * weights, -weights, weights])
    for axes, kernels in (((0, None), weights), ((0, 0), several)):
        mapped = jax.vmap(jax.grad(_loss, (0, 1)), axes)(x, kernels)
        single = [
            jax.grad(_loss, (0, 1))(x[n], kernels if axes[1] is None else kernels[n])
            for n in range(4)
        ]
        for stack, *each in zip(mapped, *single, strict=True):
            np.testing.assert_allclose(stack, jnp.stack(each), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("platform", "grouped"), [("cpu", 0), ("tpu", 3), ("cuda", 3)])
def test_only_a_cpu_does_without_xla_s_convolution(platform, grouped):
    traced = jax.jit(jax.value_and_grad(_loss, (0, 1))).trace(*_arrays((3, 3), (6, 5)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == grouped


def test_it_counts_as_the_grouped_convolution():
    arrays = _arrays((3, 3), (8, 7), images=1)
    given = (2, 2), ((1, 1), (1, 1))

    def ours(x, weights):
        return depthwise_convolution(x, weights, *given)

    def theirs(x, weights):
        return _grouped(x, weights, *given)

    assert traced_macs(ours, *arrays) == traced_macs(theirs, *arrays) == 4 * 4 * 9 * 5
    number_of_the_platform = 4
    assert peak_bytes(ours, *arrays) <= peak_bytes(theirs, *arrays) + number_of_the_platform


def test_a_network_s_variables_logits_and_gradients_stay(monkeypatch):
    net = tiny_mbconv()
    variables = random_variables(net, net.channels)
    images = np.random.default_rng(2).normal(size=(4, *net.image_shape)).astype(np.float32)

    @jax.jit
    def gradients(variables, images):
        def loss(*given):
            logits = net.module(net.channels).apply(*given)
            return jnp.sum(jnp.square(logits)), logits

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables, images)

    ours, traced = gradients(variables, images), str(gradients.trace(variables, images).jaxpr)
    monkeypatch.setattr(blocks, "depthwise_convolution", None)  # nn.Conv's own: XLA's
    gradients.clear_cache()
    theirs, plain = gradients(variables, images), str(gradients.trace(variables, images).jaxpr)
    assert "branches_platforms" in traced
    assert "branches_platforms" not in plain
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(b)))
        ),
        ours,
        theirs,
    )
