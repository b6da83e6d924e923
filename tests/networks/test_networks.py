"""Networks: published sizes, the traced graph, masked against shrunk."""

import functools
import importlib
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from furs_jax.costs.macs import Macs
from furs_jax.errors import ConfigError
from furs_jax.networks import NETWORKS, families, get_network
from furs_jax.networks.axes import site_axes
from furs_jax.networks.products import traced_macs
from tests.conftest import random_variables, tiny_densenet, tiny_network

PADDINGS = ("max", "local")
# Networks without residual sums have one way only.
VARIANTS = [
    (name, padding)
    for name in NETWORKS
    for padding in (PADDINGS if hasattr(get_network(name).template, "padding") else ("max",))
]


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("resnet18", 1_814_073_344, 11_689_512),
        ("resnet34", 3_663_761_408, 21_797_672),
        ("resnet20_cifar", 40_556_800, None),
        ("resnet32_cifar", 68_868_352, None),
        ("resnet56_cifar", 125_491_456, None),
        ("plain20_cifar", 40_556_800, None),
        # A source gives 282 M: that needs a stem of 2k channels (16 give 264.9 M).
        ("densenet40_cifar", 282_958_368, None),
        ("pyramidnet20_cifar", 40_436_044, None),
        ("mnasnet_a1", 311_579_072, 3_887_038),
        ("efficientnet_b0", 385_814_752, 5_288_548),
    ],
)
def test_published_sizes(name, macs, params):
    net = get_network(name)
    assert net.macs(net.channels) == macs
    assert params is None or net.params(net.channels) == params


def test_every_file_of_the_families_is_found_and_no_name_is_taken_twice():
    files = [module.name for module in pkgutil.iter_modules(families.__path__)]
    tables = [importlib.import_module(f"{families.__name__}.{name}").NETWORKS for name in files]
    assert sorted(NETWORKS) == sorted(name for table in tables for name in table)
    assert len(set(NETWORKS)) == len(NETWORKS)
    assert all(tables)


def test_resnet110_is_within_the_published_range():
    net = get_network("resnet110_cifar")
    assert 252e6 <= net.macs(net.channels) <= 255e6


def test_the_paper_s_searched_vectors_count_as_published():
    wide = get_network("resnet18", 0.8)
    assert wide.template.stem == 51
    assert wide.macs(wide.channels) == pytest.approx(1.17e9, rel=0.005)
    found = [26, 53, 16, 62, 103, 96, 84, 89, 366, 162, 184, 174, 673, 283, 637, 833]
    assert round(wide.macs(found) / 1e6, 1) == 1182.5
    small = get_network("resnet20_cifar")
    found = [6, 17, 6, 17, 9, 16, 26, 23, 28, 24, 29, 29, 78, 66, 93, 97, 112, 128]
    assert round(small.macs(found) / 1e6, 2) == 43.38


@pytest.mark.parametrize(("name", "padding"), VARIANTS)
def test_macs_and_params_are_those_of_the_traced_network(name, padding, monkeypatch):
    # Tracing random initial values takes most of the time.
    monkeypatch.setattr(nn.initializers, "variance_scaling", lambda *_: nn.initializers.zeros)
    small = name.endswith("cifar")
    rng = np.random.default_rng(0)
    for shape in [(32, 32, 3), (25, 19, 1)] if small else [(64, 64, 3), (45, 61, 1)]:
        net = get_network(name, num_classes=7, padding=padding, image_shape=shape)
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        for vector in range(3):
            channels = [int(rng.integers(1, 2 * c)) for c in net.channels]
            init = net.module(channels).init  # computes the network once, as apply does
            assert traced_macs(init, jax.random.key(0), image) == net.macs(channels)
            if vector == 0:
                params = jax.eval_shape(init, jax.random.key(0), image)["params"]
                assert sum(x.size for x in jax.tree.leaves(params)) == net.params(channels)


@st.composite
def convolutions(draw):
    """Arguments of `jax.lax.conv_general_dilated`, of one to three dimensions."""
    axes, small = draw(st.integers(1, 3)), st.integers(1, 3)
    groups, batch_groups = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]))
    inputs, outputs, batch = draw(small), draw(small) * groups * batch_groups, draw(small)
    space = [(draw(st.integers(1, 6)), draw(small), draw(small), draw(small)) for _ in range(axes)]
    sizes, windows, lhs, rhs = zip(*space, strict=True)
    # Wide enough for the kernel.
    padding = [
        (draw(st.integers(0, 4)) + (k - 1) * r, draw(st.integers(0, 4)))
        for k, r in zip(windows, rhs, strict=True)
    ]
    options = {
        "window_strides": [draw(small) for _ in range(axes)],
        "padding": padding,
        "lhs_dilation": lhs,
        "rhs_dilation": rhs,
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
        "dimension_numbers": draw(st.sampled_from(LAYOUTS[axes])),
    }
    x = {"N": batch * batch_groups, "C": inputs * groups, **dict(zip("DHW", sizes, strict=False))}
    w = {"I": inputs, "O": outputs, **dict(zip("DHW", windows, strict=False))}
    return x, w, options


LAYOUTS = {
    1: [("NDC", "DIO", "NDC"), ("NCD", "OID", "NDC")],
    2: [("NDHC", "DHIO", "NDHC"), ("NCDH", "OIDH", "NCDH"), ("NDHC", "OIDH", "CDHN")],
    3: [("NDHWC", "DHWIO", "NDHWC"), ("NCDHW", "OIDHW", "NCDHW")],
}


@settings(max_examples=100, deadline=None)
@given(convolutions())
def test_a_convolution_counts_its_multiplications(problem):
    x, w, options = problem
    left, right, _ = options["dimension_numbers"]
    arrays = [
        jax.ShapeDtypeStruct([sizes[axis] for axis in layout], jnp.float32)
        for sizes, layout in ((x, left), (w, right))
    ]
    convolve = functools.partial(jax.lax.conv_general_dilated, **options)
    # One by one: every position of the window, every tap. Inputs and the padding's zeros are
    # multiplied, the zeros between inputs are not.
    pairs = 1
    for axis, name in enumerate("DHW"[: len(options["padding"])]):
        (before, after), spread = options["padding"][axis], options["lhs_dilation"][axis]
        stride, reach = options["window_strides"][axis], options["rhs_dilation"][axis]
        size = before + (x[name] - 1) * spread + 1 + after
        multiplied = [(place - before) % spread == 0 for place in range(size)]
        starts = range(0, size - (w[name] - 1) * reach, stride)
        pairs *= sum(multiplied[s + t * reach] for s in starts for t in range(w[name]))
    images = x["N"] // options["batch_group_count"]
    assert traced_macs(convolve, *arrays) == pairs * images * w["I"] * w["O"]


def test_a_transposed_convolution_counts_as_an_einsum_of_the_same_map():
    x, w = jnp.ones((1, 4, 4, 8)), jnp.ones((2, 2, 8, 16))
    transposed = functools.partial(jax.lax.conv_transpose, strides=(2, 2), padding="SAME")
    by_einsum = functools.partial(jnp.einsum, "nijc,abcd->niajbd")
    found = transposed(x, w)
    np.testing.assert_array_equal(found, by_einsum(x, w).reshape(found.shape))
    assert traced_macs(transposed, x, w) == traced_macs(by_einsum, x, w) == 4 * 4 * 2 * 2 * 8 * 16


@jax.custom_vjp
def _squared(x):
    return x @ x


_squared.defvjp(lambda x: (x @ x @ x @ x, x), lambda x, g: (g,))


@pytest.mark.parametrize(
    ("fn", "times"),
    [
        (jax.checkpoint(lambda x: x @ x), 1),
        (_squared, 1),
        (jax.vmap(lambda row: row @ jnp.eye(4)), 1),
        (lambda x: jax.lax.scan(lambda c, _: (c @ x @ x, None), x, length=3)[0], 6),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, c: c @ x, x), 3),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda c: c @ c @ c, lambda c: c @ c, x) @ x, 3),
        (lambda x: jax.lax.switch(x[0, 0].astype(int), [jnp.sin, lambda c: c @ c], x) @ x, 2),
        (lambda x: jax.lax.while_loop(lambda c: c[0, 0] > 0, jnp.sin, x @ x), 1),
    ],
)
def test_macs_of_loops_and_branches(fn, times):
    assert traced_macs(fn, jnp.ones((4, 4))) == times * 4**3


def test_a_loop_of_unknown_length_can_t_be_counted():
    with pytest.raises(ConfigError, match="known only when it runs"):
        traced_macs(
            lambda x: jax.lax.while_loop(lambda c: c[0, 0] > 0, lambda c: c @ c, x), jnp.eye(4)
        )


def test_traced_macs_of_known_products():
    x, w = jnp.ones((1, 8, 8, 6)), jnp.ones((3, 3, 2, 9))
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 2),
        padding="SAME",
        feature_group_count=3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert traced_macs(conv, x, w) == 4 * 4 * 9 * 3 * 3 * 2
    assert traced_macs(jax.jit(jnp.matmul), jnp.ones((5, 7)), jnp.ones((7, 3))) == 5 * 7 * 3


def test_marginal_macs_match_a_closed_form():
    # A CIFAR block's first convolution: 9 H W (inputs + outputs) per channel.
    net = get_network("resnet8_cifar", image_shape=(32, 32, 3))
    assert Macs(net).marginals(net.channels)[0] == 9 * 32 * 32 * (16 + 16)


def _changed(variables, change):
    """Every array with change(path and axis, size) along each axis: the indices to take."""

    def take(path, x):
        of = jax.tree_util.keystr(path[1:])
        return x[np.ix_(*[change((of, axis), size) for axis, size in enumerate(x.shape)])]

    return jax.tree_util.tree_map_with_path(take, variables)


def _reordered(found, variables, rng):
    """The variables with the channels of all free sites in another order."""
    orders = {}
    for site in found.free:
        order = rng.permutation(found.channels[site])
        for place in found.places[site]:
            indices = orders.setdefault((place.path, place.axis), np.arange(len(place.channels)))
            (here,) = np.nonzero(place.channels >= 0)
            assert place.alone[here].all()
            indices[here] = here[order[place.channels[here]]]
    return _changed(variables, lambda axis, size: orders.get(axis, np.arange(size)))


@pytest.mark.parametrize(
    ("name", "padding"),
    [
        # Every width of a concatenation is compiled, so a small DenseNet must do.
        *(variant for variant in VARIANTS if not variant[0].startswith("densenet")),
        *(("tiny imagenet", padding) for padding in PADDINGS),
        ("tiny densenet", "max"),
    ],
)
def test_a_zeroed_gate_is_a_channel_removed_by_the_map(name, padding):
    if name == "tiny imagenet":
        net = tiny_network(padding, imagenet=True)
    elif name == "tiny densenet":
        net = tiny_densenet()
    else:
        shape = (8, 8, 3) if name.endswith("cifar") else (32, 32, 3)
        net = get_network(name, 0.5, 10, padding, shape)
    rng = np.random.default_rng(1)
    # Few different widths, and no jit: each shape of a convolution is compiled once.
    wide = [int(c) for c in rng.choice((6, 8), len(net.channels))]
    narrow = [int(c) for c in rng.choice((3, 5), len(net.channels))]
    found = site_axes(net, wide)
    # Residual sums align the last channels, so the leading ones go where the order is not free.
    removed = [
        (rng.permutation(w) if site in found.free else np.arange(w))[: w - n]
        for site, (w, n) in enumerate(zip(wide, narrow, strict=True))
    ]
    gates = [
        (~np.isin(np.arange(w), gone)).astype(np.float32).reshape(1, 1, 1, w)
        for w, gone in zip(wide, removed, strict=True)
    ]
    images = rng.normal(size=(2, *net.image_shape)).astype(np.float32)
    variables = random_variables(net, wide)
    masked = net.module(wide).apply(variables, images, gates)
    kept = found.kept(removed)
    left = _changed(variables, lambda axis, size: kept[axis])
    shrunk = net.module(narrow).apply(left, images)
    unmasked = net.module(wide).apply(variables, images)
    reordered = net.module(wide).apply(_reordered(found, variables, rng), images)
    scale = float(jnp.std(unmasked))
    np.testing.assert_allclose(masked, shrunk, atol=1e-4 * scale)
    np.testing.assert_allclose(reordered, unmasked, atol=1e-4 * scale)
    assert found.free
    assert float(jnp.max(jnp.abs(masked - unmasked))) > 1e-2 * scale


def test_the_trunk_keeps_the_widest_or_the_block_rules():
    channels = (4, 9, 4, 6, 4, 5)
    widths = {
        padding: [
            len(b.join.trunk)
            for b in get_network("resnet8_cifar", padding=padding).module(channels).blocks()
        ]
        for padding in PADDINGS
    }
    assert widths == {"max": [16, 16, 16], "local": [9, 6, 5]}
    downsampling = get_network("resnet18").module([8, 8, 8, 200] + [8] * 12).blocks()
    assert [len(block.join.trunk) for block in downsampling] == [64, 200, 8, 8, 8, 8, 8, 8]


def test_site_names_are_the_convolutions_of_the_blocks():
    assert get_network("resnet18").site_names[5] == "stage2_block1_conv2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "known are densenet16_cifar"),
        ({"name": "resnet18", "padding": "none"}, "must be one of max, local"),
        ({"name": "resnet20_cifar", "width_multiplier": 1 / 64}, "without channels"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        get_network(**arguments)
