"""Networks of one's own: counted from their trace, measured and trained as ours are."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import furs_jax
from configs import digits
from furs_jax.data.batches import evaluation_batches
from furs_jax.errors import ConfigError
from furs_jax.gates import fit_width, gate
from furs_jax.jobs.prepare import prepare
from furs_jax.networks.batch_norm import differing
from furs_jax.networks.families.densenet import DenseNet, densenet
from furs_jax.networks.families.resnet import cifar_resnet
from furs_jax.networks.products import traced_macs
from furs_jax.options.parse import parse
from furs_jax.options.schema import PADDINGS
from furs_jax.training.step import shard
from furs_jax.training.trainer import make_trainer
from furs_jax.widths.budget import fit_to_budget
from tests.conftest import random_variables
from tests.own_network import Fork
from tests.training.test_step import RECIPE, random_split, random_task

SHAPE = (8, 8, 1)
NAME = "tests.own_network:Fork"


def test_macs_and_params_are_those_of_the_traced_network():
    net = furs_jax.Network.from_module(Fork(), SHAPE)
    assert net.model is not None  # without a formula a reallocation would take minutes
    rng = np.random.default_rng(0)
    for _ in range(5):
        channels = (2 * rng.integers(1, 12, 4)).tolist()
        init = net.module(channels).init
        image = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
        macs = traced_macs(init, jax.random.key(0), image)
        params = jax.eval_shape(init, jax.random.key(0), image)["params"]
        layers = net.layers(channels)
        assert net.macs(channels) == sum(layer.macs for layer in layers) == macs
        total = sum(x.size for x in jax.tree.leaves(params))
        assert net.params(channels) == sum(layer.params for layer in layers) == total
    rows = [(row.name, row.site, row.groups) for row in layers[:-1]]
    convs = [(f"Conv_{site}", site, groups) for site, groups in enumerate((1, 1, 1, 2))]
    assert rows == [*convs, ("Dense_0", None, 1)]


@pytest.mark.parametrize(
    "template",
    [
        *(cifar_resnet(8, 0.5, num_classes=10, padding=padding) for padding in PADDINGS),
        densenet(10, 0.5, num_classes=10),
    ],
)
def test_a_trace_finds_the_layers_that_a_network_of_ours_states(template):
    ours = furs_jax.Network("ours", template, SHAPE)
    traced = furs_jax.Network.from_module(ours.template, SHAPE)
    assert traced.model is not None
    rng = np.random.default_rng(0)
    for _ in range(20):
        channels = rng.integers(1, 40, len(ours.channels)).tolist()
        assert traced.macs(channels) == ours.macs(channels)
    assert traced.params(channels) == ours.params(channels)
    stated = {(row.site, row.macs) for row in ours.layers(channels)}
    # A gate behind a concatenation doesn't tell which part of it was which layer's.
    sites = not isinstance(template, DenseNet)
    found = {(row.site, row.macs) for row in traced.layers(channels) if row.macs}
    assert found == stated if sites else {m for _, m in found} == {m for _, m in stated}


class UpAndDown(nn.Module):
    """A transposed convolution; a layer that only initialising computes, another only training."""

    channels: tuple[int, ...] = (8, 16)
    num_classes: int = 10

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = gate(nn.relu(nn.Conv(self.channels[0], (3, 3), strides=2)(images)), gates, 0)
        up = nn.ConvTranspose(self.channels[1], (3, 2), strides=(2, 2), name="up")
        x = gate(nn.relu(up(x)), gates, 1)
        if self.is_initializing() or train:
            nn.Dense(1000, name="auxiliary")(x)
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


def test_what_apply_computes_is_counted():
    net = furs_jax.Network.from_module(UpAndDown(), SHAPE)
    assert net.model is not None
    rows = {row.name: row for row in net.layers((5, 7))}
    assert "auxiliary" not in rows
    assert rows["up"].macs == 3 * 2 * 5 * 7 * 4 * 4
    assert (rows["up"].kernel, rows["up"].height, rows["up"].width) == ((3, 2), 8, 8)
    assert net.macs((5, 7)) == rows["up"].macs + 9 * 5 * 4 * 4 + 7 * 10
    assert sum(row.params for row in rows.values()) == net.params((5, 7))


class Rounded(Fork):
    """Its width is filled up, with zeros, to one that follows only in steps: no formula."""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = gate(nn.Conv(self.channels[0], (3, 3))(images), gates, 0)
        x = nn.Conv(4, (1, 1))(fit_width(x, 8 * (self.channels[0] // 3 + 1)))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def test_without_a_formula_every_vector_is_traced():
    net = furs_jax.Network.from_module(Rounded((6,)), SHAPE)
    assert net.model is None
    assert [net.macs([c]) for c in (5, 6)] == [
        64 * (9 * c + wide * 4) + 4 * 10 for c, wide in ((5, 16), (6, 24))
    ]
    assert net.macs([0]) == 2 * net.macs([1]) - net.macs([2])  # as at the least width is asked for


@pytest.mark.parametrize("options", [{"width_multiplier": 2.0}, {"flops_budget": 1e5}])
def test_a_config_names_it(options):
    config = digits.get_config("smoke")
    config.network, config.width_multiplier = NAME, 1.0
    config.cpu_devices, config.reallocate.channel_multiple = 0, 2
    config.update(options)
    _, task, _, budget, *_ = prepare(parse(config))
    channels = task.net.channels
    assert all(c % 2 == 0 for c in channels)
    assert task.net.template.num_classes == 10
    if "flops_budget" in options:
        assert 0.98e5 < task.net.macs(channels) <= budget == 100_000
    else:
        assert channels == (12, 8, 16, 24)
    config.reallocate.channel_multiple = 1
    with pytest.raises(ConfigError, match="multiples of 2 channels only"):
        prepare(parse(config))
    config.channels = (6, 4, 8, 12)
    with pytest.raises(ConfigError, match="multiples of 2 channels only"):
        prepare(parse(config))
    config.mode = "train"
    assert prepare(parse(config)).start == config.channels
    config.channels = (6, 4, 8, 13)
    with pytest.raises(ConfigError, match="multiples of 2 only"):
        prepare(parse(config))


def test_its_reallocation_keeps_the_budget():
    net = furs_jax.Network.from_module(Fork((32, 16, 32, 48)), SHAPE)
    budget = int(1.1 * net.macs(net.channels))
    found = fit_to_budget(net, net.channels, budget, channel_multiple=2)
    assert 0.98 * budget <= net.macs(found) <= budget


def _furs(net, **options):
    batches = evaluation_batches(random_split(12), 4)
    variables = random_variables(net, net.channels)
    return furs_jax.estimate_furs(
        net,
        net.channels,
        variables,
        batches,
        preprocess=lambda images: images.astype(jnp.float32) / 255,
        devices=jax.devices()[:1],
        draws=2,
        **options,
    )


class Unmatched(Fork):
    """A sum without `match_streams`: fan-out fails by its shapes."""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = gate(nn.Conv(self.channels[0], (3, 3))(images), gates, 0)
        y = gate(nn.Conv(self.channels[1], (3, 3))(x), gates, 1)
        y = fit_width(y, 16) + fit_width(x, 16)
        return nn.Dense(self.num_classes)(y.mean(axis=(1, 2)))


class CountsImages(Unmatched):
    """Takes images apart by the batch's size: fan-out has right shapes and wrong values."""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = gate(nn.Conv(self.channels[0], (3, 3))(images), gates, 0)
        x = x.reshape(len(images), -1, self.channels[0]).mean(axis=1)[:, None, None]
        x = gate(nn.Conv(self.channels[1], (1, 1))(x), gates, 1)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


@pytest.mark.parametrize(
    ("module", "fans_out"),
    [(Fork(), True), (Unmatched((4, 6)), False), (CountsImages((4, 6)), False)],
)
def test_furs_use_branches_only_where_they_are_right(module, fans_out):
    net = furs_jax.Network.from_module(module, SHAPE)
    assert net.fans_out == fans_out
    if type(module) is Unmatched:
        return  # CountsImages shows the rest
    default, passes = _furs(net), _furs(net, fan_out=False)
    np.testing.assert_allclose(default.loss_increase, passes.loss_increase, rtol=1e-3, atol=1e-6)


class Draws(Fork):
    """Draws in training by nn.Dropout and under a name of its own."""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(images)
        if train:
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        x = gate(nn.relu(nn.Conv(self.channels[0], (3, 3))(x)), gates, 0)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def test_what_a_module_draws_in_training_is_its_own_by_seed_step_and_device():
    net = furs_jax.Network.from_module(Draws((4,)), SHAPE)
    split = random_split(48)
    # Without augmentation or dropout at the sites.
    recipe = dataclasses.replace(RECIPE, crop_margin=0, flip=False, dropout=0.0)
    trainers = {
        devices: make_trainer(random_task(net, devices), net.channels, recipe, split)
        for devices in (1, 2)
    }

    def loss(seed=0, step=0, devices=1):
        state = trainers[1].start(0).replace(seed=jnp.int32(seed), step=jnp.int32(step))
        # Every device has the same images.
        batch = {
            "image": np.concatenate([split.images[:8]] * devices),
            "label": np.concatenate([split.labels[:8]] * devices),
        }
        return float(trainers[devices].step(state, shard(batch, devices))[1]["loss"])

    losses = [loss(), loss(seed=1), loss(step=1), loss(devices=2)]
    assert len(set(losses)) == 4
    assert loss(devices=2) == losses[-1]


def _psum(x):
    return jax.lax.psum(x, "batch")


@pytest.mark.parametrize(
    ("fn", "differs"),
    [
        (jnp.sin, True),
        (lambda x: jnp.ones_like(x), False),
        (lambda x: _psum(x) + 1, False),
        (lambda x: _psum(x) + x, True),
        (lambda x: jax.lax.pmean(x, "other"), True),
        (lambda x: jax.lax.all_gather(x, "batch").mean(0), False),
        (lambda x: jax.lax.psum(x, "batch", axis_index_groups=[[0], [1]]), True),
        (lambda x: jax.lax.axis_index("batch") + 0 * _psum(1), True),
        (jax.checkpoint(jax.jit(_psum)), False),
        (jax.jit(jnp.sin), True),
        (lambda x: jax.lax.scan(lambda c, _: (x, c), 0.0, length=2)[1], True),
        (lambda x: jax.lax.scan(lambda c, _: (_psum(c), c), x, length=2)[0], True),
        (lambda x: jax.lax.scan(lambda c, _: (c + _psum(x), 0), 0.0, length=2)[0], False),
        (lambda x: jax.lax.while_loop(lambda c: c < 3, lambda c: c + _psum(x), 0.0), False),
        (lambda x: jax.lax.while_loop(lambda c: c < x, lambda c: c + 1, 0.0), True),
        (lambda x: jax.lax.cond(x > 0, lambda: 1.0, lambda: 2.0), True),
        (lambda x: jax.lax.cond(_psum(x) > 0, lambda: 1.0, lambda: _psum(x)), False),
        (lambda x: jax.lax.cond(_psum(x) > 0, lambda: 1.0, lambda: x), True),
    ],
)
def test_what_differs_from_device_to_device(fn, differs):
    jaxpr = jax.make_jaxpr(fn, axis_env=[("batch", 2), ("other", 2)])(1.0).jaxpr
    assert any(differing(jaxpr, [True], "batch")) == differs
    assert not any(differing(jaxpr, [False], "batch")) or "axis_index" in str(jaxpr)
