"""Modules of one's own that can't be searched are refused, before anything is trained."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import pytest

import furs_jax
from furs_jax.errors import ConfigError
from furs_jax.gates import fit_width, gate
from furs_jax.networks import get_network
from tests.own_network import Fork

SHAPE = (8, 8, 1)


class Gated(nn.Module):
    """One way or another to gate site 1, right or wrong."""

    channels: tuple[int, ...] = (6, 8)
    num_classes: int = 3
    axis_name: str | None = None
    way: str = ""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        way, width = self.way, self.channels[1]
        norm = functools.partial(nn.BatchNorm, not train, axis_name=self.axis_name)

        def layer(x, width=width):
            return nn.relu(norm()(nn.Conv(width, (3, 3), use_bias=False)(x)))

        x = gate(layer(images, self.channels[0]), gates, 0)
        x = self._second(way, x, width, gates, layer, norm)
        x = nn.Conv(4, (3, 3), name="reader")(x)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))

    def _second(self, way, x, width, gates, layer, norm):
        if way == "gate one side":
            return layer(x) + gate(layer(x), gates, 1)
        if way == "gate the sum":
            return gate(layer(x) + layer(x), gates, 1)
        if way in ("cut the shortcut", "cut and gate"):
            y = layer(x)
            if way == "cut and gate":
                return gate(fit_width(x, width) + y, gates, 1)
            return fit_width(x, width) + gate(y, gates, 1)
        if way == "before norm":
            return nn.relu(norm()(gate(nn.Conv(width, (3, 3))(x), gates, 1)))
        y = gate(layer(x), gates, 1)
        if way in ("pad in front", "pad behind"):
            most = max(x.shape[-1], width)
            if way == "pad in front":
                return fit_width(x, most) + fit_width(y, most)
            return sum(jnp.pad(z, [(0, 0)] * 3 + [(0, most - z.shape[-1])]) for z in (x, y))
        if way == "sigmoid":
            return nn.sigmoid(y)
        if way == "layer norm":
            return nn.LayerNorm()(y)
        if way == "channel mean":
            return y * y.mean(axis=-1, keepdims=True)
        if way.startswith("squeeze"):
            squeezed = width // 4 if way == "squeeze by width" else 2
            weights = nn.Dense(width)(nn.relu(nn.Dense(squeezed)(y.mean(axis=(1, 2)))))
            return y * nn.sigmoid(weights)[:, None, None]
        if way == "depthwise, then norm":
            return nn.relu(norm()(nn.Conv(width, (3, 3), feature_group_count=width)(y)))
        return y.reshape(len(y), 1, 1, -1)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("gate one side", "not the network without that channel: BatchNorm_1/mean goes on count"),
        ("gate the sum", None),
        (
            "cut the shortcut",
            "not the network without that channel: reader/kernel goes on count",
        ),
        ("cut and gate", None),
        ("before norm", "not the network without that channel: BatchNorm_1/mean goes on count"),
        ("pad in front", None),
        ("pad behind", None),
        ("sigmoid", "not the network without that channel: reader/kernel goes on counting"),
        ("layer norm", "not the network without that channel: "),
        ("channel mean", "gives other logits than the network without that channel"),
        ("squeeze", None),
        ("squeeze by width", "not the network without that channel: Dense_0/.* goes on count"),
        ("depthwise, then norm", "not the network without that channel: BatchNorm_2/mean goes"),
        ("flatten", None),
    ],
)
def test_a_gate_of_zero_must_be_a_removed_channel(way, message):
    module = Gated(way=way)
    if message is None:
        furs_jax.Network.from_module(module, SHAPE)
        return
    with pytest.raises(ConfigError, match=f"Gated: .*a gate of zero at site 1 .*{message}"):
        furs_jax.Network.from_module(module, SHAPE)


class Broken(Fork):
    """`fault` says what is wrong with it."""

    fault: str = ""

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        fault = self.fault
        first = 6 if fault == "fixed" else self.channels[0]
        x = nn.Conv(first, (3, 3))(images)
        if fault == "norm":
            x = nn.BatchNorm(not train)(x)
        if fault == "second norm":
            x = nn.BatchNorm(not train, axis_name=self.axis_name)(x)
            x = nn.BatchNorm(not train)(x)
        x = gate(x, gates, 0)
        if fault == "dropout":
            x = nn.Dropout(0.5, deterministic=False)(x)
        y = nn.Conv(self.channels[1], (3, 3))(x)
        if fault != "ungated":
            y = gate(y, gates, 5 if fault == "beyond" else 1)
        if fault == "sum":
            y = x + y
        y = nn.Dense(3 if fault == "classes" else self.num_classes)(y.mean(axis=(1, 2)))
        if (fault == "several") or (fault == "several in training" and train):
            return {"logits": y, "auxiliary": y}
        return y.astype(jnp.bfloat16) if fault == "dtype" else y


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("fixed", "at site 0 of Broken the gate meets .* where channels\\[0\\] = "),
        ("ungated", "no gate at site 1 \\(channels\\[1\\] = 6\\)"),
        ("beyond", "gates site 5, but `channels` has 2 entries"),
        (
            "sum",
            "7 channels at site 0 in place of 6 .*test_checks.py, line [0-9]+: y = x \\+ y\\). "
            "Layers of different widths are summed by furs_jax.gates.fit_width .README, 'Your own",
        ),
        ("classes", "logits of shape \\(N, 10\\), not float32 \\(N, 3\\)"),
        ("dtype", "must return float32 logits"),
        ("dropout", "draws random numbers where train is False .*deterministic=not train"),
        ("norm", "pass it to every nn.BatchNorm: BatchNorm_0 takes"),
        ("second norm", "pass it to every nn.BatchNorm: BatchNorm_1 takes"),
        ("several", "must return one array, .* not a dict of 2: leave out"),
        ("several in training", "not a dict of 2 in training: leave out"),
    ],
)
def test_a_module_that_cant_be_searched_is_refused(fault, message):
    with pytest.raises(ConfigError, match=message):
        furs_jax.Network.from_module(Broken((6, 6), fault=fault), SHAPE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.nothing:Fork", "can't be imported"),
        ("tests.own_network:Spoon", "can't be imported"),
        ("tests.own_network:jnp", "no flax.linen module"),
        ("flax.linen:Conv", "can't be built without arguments"),
        ("flax.linen:Sequential", "can't be built without arguments"),
    ],
)
def test_a_name_that_names_no_module_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        get_network(name, image_shape=SHAPE)


@pytest.mark.parametrize(
    ("module", "message"),
    [(nn.Dense(10), "needs a field `channels`"), (Fork([6, 4, 8, 12]), "tuples not lists")],
)
def test_a_module_without_a_tuple_of_channels_is_refused(module, message):
    with pytest.raises(ConfigError, match=message):
        furs_jax.Network.from_module(module, SHAPE)
