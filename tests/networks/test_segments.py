"""Pieces of a forward pass: together they are the network, and each can be known again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.networks.segments import module_segments, segments
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv, tiny_network
from tests.own_network import Fork

NETS = {
    "resnet": tiny_network(),
    "mbconv": tiny_mbconv(),
    "densenet": tiny_densenet(),
    "own": Network.from_module(Fork(), (8, 8, 1)),
}


def uneven(net):
    return [c + net.multiple * (site % 3) for site, c in enumerate(net.channels)]


@pytest.mark.parametrize("name", NETS)
def test_one_after_the_other_they_compute_what_the_network_does(name):
    net = NETS[name]
    channels = uneven(net)
    variables = random_variables(net, channels)
    images = jax.random.normal(jax.random.key(0), (2, *net.image_shape))

    def apply(variables, images):
        return net.module(channels).apply(variables, images, None)

    traced = jax.make_jaxpr(apply)(variables, images)

    def in_pieces(variables, images):
        inputs = [*jax.tree.leaves(variables), images]
        known = dict(zip(traced.jaxpr.invars, inputs, strict=True))
        known |= dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
        for piece in segments(traced.jaxpr):
            given = [known[variable] for variable in piece.program.invars]
            made = jax.core.eval_jaxpr(piece.program, (), *given)
            known |= dict(zip(piece.program.outvars, made, strict=True))
        (logits,) = made
        return logits

    found, logits = jax.jit(lambda *given: (in_pieces(*given), apply(*given)))(variables, images)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)


def kinds(piece):
    return [equation.primitive.name for equation in piece.program.eqns]


def test_batchnorm_and_activation_belong_to_their_convolution():
    net = Network("chain", Plain((6, 10, 3), 5, 10, stages=1), (8, 8, 1))
    pieces = module_segments(net.module((6, 10, 3)), net.image_shape, 4)
    convolutions = [piece for piece in pieces if "conv_general_dilated" in kinds(piece)]
    assert len(convolutions) == 4
    for piece, (before, width) in zip(
        convolutions, [(1, 5), (5, 6), (6, 10), (10, 3)], strict=True
    ):
        assert {"rsqrt", "max"} <= set(kinds(piece))
        shapes = [v.aval.shape for v in piece.program.invars]
        assert (4, 8, 8, before) in shapes
        assert [shapes[place] for place in piece.kernels] == [(3, 3, before, width)]
        assert [v.aval.shape for v in piece.program.outvars] == [(4, 8, 8, width)]
        sizes = [
            size for v in (*piece.program.invars, *piece.program.outvars) for size in v.aval.shape
        ]
        assert list(piece.sizes) == sizes


def test_a_kernel_is_one_whatever_it_is_computed_in():
    def dense(bias, kernel, images):
        return images.astype(jnp.bfloat16) @ kernel.astype(jnp.bfloat16) + bias[None]

    bias, kernel, images = (jnp.zeros(s, jnp.bfloat16) for s in ((4,), (3, 4), (2, 3)))
    traced = jax.make_jaxpr(dense)(bias, kernel.astype(jnp.float32), images.astype(jnp.float32))
    piece = segments(traced.jaxpr)[-1]
    assert [piece.program.invars[place].aval.shape for place in piece.kernels] == [(3, 4)]


def test_a_sum_stands_alone_and_pads_what_it_reads():
    net = NETS["resnet"]
    pieces = module_segments(net.module(uneven(net)), net.image_shape, 1)
    sums = [p for p in pieces if not p.kernels and "add" in kinds(p)]
    assert len(sums) == len(net.block_joins())
    assert any("pad" in kinds(piece) for piece in sums)
    assert not any("pad" in kinds(piece) for piece in pieces if piece.kernels)


def test_keys_tell_shapes_and_computations_apart():
    net = NETS["resnet"]

    def keys(channels, images=1):
        return [p.key for p in module_segments(net.module(channels), net.image_shape, images)]

    assert keys(net.channels) == keys(net.channels)
    wider = [net.channels[0] + 1, *net.channels[1:]]
    assert keys(wider) != keys(net.channels)
    assert set(keys(net.channels, images=2)).isdisjoint(keys(net.channels))
    net = Network("chain", Plain((6, 6, 6, 6), 6, 10, stages=1), (8, 8, 1))
    assert len(keys(net.channels)) - len(set(keys(net.channels))) == 3  # equal layers are equal
