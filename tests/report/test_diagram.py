"""The network as blocks: what is drawn, and that it can be read."""

import dataclasses
import json

import flax.linen as nn
import numpy as np
import pytest

from furs_jax.gates import fit_width, gate, match_streams
from furs_jax.networks import NETWORKS, get_network
from furs_jax.networks.layers import Layer
from furs_jax.networks.network import Network
from furs_jax.networks.recorded import read_network
from furs_jax.networks.recording import record_network
from furs_jax.report import draw_network
from furs_jax.report.columns import network_arcs, network_columns, network_connections
from furs_jax.report.palette import NARROWER, NEUTRAL, WIDER
from tests.conftest import tiny_densenet, tiny_mbconv
from tests.fake_runs import RELEASED, fake_run
from tests.own_network import Fork
from tests.report.texts import overlaps


def test_figure_4_of_the_released_vector():
    net = get_network("resnet18", 0.8)
    columns = network_columns(net, net.channels, RELEASED, network_connections(net))
    assert [c.after for c in columns] == [51, *RELEASED]
    colours = [c.colour for c in columns[1:]]
    wider = np.greater(RELEASED, net.channels)
    assert colours == [WIDER if is_wider else NARROWER for is_wider in wider]
    assert [c.layer.name for c in columns if c.strided] == [
        f"stage{stage}_block1_conv1" for stage in (2, 3, 4)
    ]
    figure = draw_network(net, net.channels, RELEASED)
    texts = [t.get_text() for t in figure.axes[0].texts]
    for width in (51, *net.channels, *RELEASED):
        texts.remove(str(width))
    assert overlaps(figure) == []


def test_unchanged_sites_are_neither_red_nor_blue():
    net = get_network("resnet8_cifar")
    columns = network_columns(net, net.channels, net.channels, None)
    assert {c.colour for c in columns[1:]} == {NEUTRAL}
    assert columns[0].colour != NEUTRAL  # the stem isn't searched


@pytest.mark.parametrize(
    ("name", "shortcuts", "projections", "concatenates"),
    [
        ("resnet18", 8, 3, False),
        ("resnet20_cifar", 9, 0, False),
        ("plain20_cifar", 0, 0, False),
        ("densenet40_cifar", 0, 0, True),
        ("pyramidnet20_cifar", 9, 0, False),
        ("mnasnet_a1", 9, 0, False),
    ],
)
@pytest.mark.parametrize("padding", ["max", "local"])
def test_shortcuts_are_those_of_the_network(name, shortcuts, projections, concatenates, padding):
    if name not in NETWORKS:
        pytest.skip(f"no {name}")
    net = get_network(name, padding=padding)
    connections = network_connections(net)
    columns = network_columns(net, net.channels, net.channels, connections)
    arcs = network_arcs(columns, connections)
    assert len(arcs) == shortcuts
    assert sum(arc.projection for arc in arcs) == projections
    blocks = [[c.block for c in columns[arc.first : arc.last + 1]] for arc in arcs]
    assert all(len(set(block)) == 1 for block in blocks)
    texts = draw_network(net, net.channels, net.channels).get_suptitle()
    assert ("each layer reads all earlier layers of its stage" in texts) == concatenates
    assert "concatenated" not in texts


@dataclasses.dataclass(frozen=True)
class Picky:
    """A module whose computation can't be traced."""

    channels: tuple[int, ...] = (8, 6)

    def clone(self, **fields):
        return dataclasses.replace(self, **fields)

    def layers(self, _):
        first, second = self.channels
        convs = [Layer("Conv_0", 3, 3, first, 8, 8, 0), Layer("Conv_1", 3, first, second, 4, 4, 1)]
        return (*convs, Layer("head", 1, second, 10, 1, 1, dense=True))


def test_a_module_that_cannot_be_traced_is_drawn_without_shortcuts():
    net = Network("picky", Picky(), (8, 8, 3))
    assert network_connections(net) is None
    figure = draw_network(net, (8, 6), (7, 9))
    assert "shortcuts are not known" in figure.get_suptitle()
    assert overlaps(figure) == []


@pytest.mark.parametrize("name", ["resnet8_cifar", "resnet56_cifar"])
def test_small_and_deep_networks_can_be_read(name):
    net = get_network(name)
    rng = np.random.default_rng(0)
    after = [int(c * rng.uniform(0.3, 2)) for c in net.channels]
    assert overlaps(draw_network(net, net.channels, after)) == []


def test_a_run_s_network_has_the_run_s_macs(tmp_path):
    """The notebook's figure counts for the run's images and classes, not for the usual ones."""
    run = fake_run(tmp_path / "r")
    title = draw_network(run.network, run.original, run.channels).get_suptitle()
    sizes = [run.result[name] for name in ("original", "searched")]
    macs, params = (" → ".join(f"{s[key] / 1e6:.4g}" for s in sizes) for key in ("macs", "params"))
    assert f"{macs} M multiply-accumulates" in title.replace("\n", " ")
    assert f"{params} M parameters" in title.replace("\n", " ")


def test_what_the_run_does_not_know_is_not_in_the_title(tmp_path):
    run = fake_run(tmp_path / "r", trained=0)
    title = draw_network(run.network, run.original, run.channels).get_suptitle()
    assert "multiply-accumulates" in title.replace("\n", " ")
    assert "parameters" not in title
    other = [c + 1 for c in run.channels]
    assert "multiply" not in draw_network(run.network, run.original, other).get_suptitle()


def drawn(net):
    connections = network_connections(net)
    columns = network_columns(net, net.channels, net.channels, connections)
    arcs = network_arcs(columns, connections)
    names = [c.layer.name for c in columns]
    title = draw_network(net, net.channels, net.channels).get_suptitle().replace("\n", " ")
    return [(names[a.first], names[a.last], a.level, a.projection) for a in arcs], title


class Residual(nn.Module):
    """A network of one's own: shortcuts past two layers, past one, and past both of these."""

    channels: tuple[int, ...] = (6, 4, 6, 6)
    num_classes: int = 10
    projection: bool = False

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        def layer(x, site):
            x = nn.Conv(self.channels[site], (3, 3))(x)
            return gate(nn.relu(x), gates, site)

        def add(x, y):  # of unequal widths
            width = max(x.shape[-1], y.shape[-1])
            return sum(match_streams(gates, fit_width(x, width), fit_width(y, width)))

        x = layer(images, 0)
        y = add(nn.Conv(3, (1, 1))(x) if self.projection else x, layer(layer(x, 1), 2))
        y = add(y, layer(y, 3))
        x = add(x, y)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def test_the_shortcuts_of_a_network_of_one_s_own_are_where_they_are():
    arcs, title = drawn(Network.from_module(Residual(), (8, 8, 3)))
    assert arcs == [
        ("Conv_1", "Conv_2", 0, False),
        ("Conv_1", "Conv_3", 1, False),
        ("Conv_3", "Conv_3", 0, False),
    ]
    assert "concatenated" not in title
    assert "reads all" not in title
    arcs, _ = drawn(Network.from_module(Residual(projection=True), (8, 8, 3)))
    assert [arc[3] for arc in arcs].count(True) == 1


@pytest.mark.parametrize(
    ("name", "strided"),
    [
        ("resnet8_cifar", (2, 4)),
        ("pyramidnet14_cifar", (4, 8)),
        ("densenet16_cifar", ()),
        ("mnasnet_cifar", None),
    ],
)
def test_layers_that_downsample_are_those_with_a_stride(name, strided):
    net = get_network(name)
    found = network_connections(net).strided
    heights = {row.site: row.height for row in net.layers(net.channels)}
    lower = tuple(s for s in range(1, len(net.channels)) if heights[s] < heights[s - 1])
    assert found == (lower if strided is None else strided)


def test_branches_of_a_network_of_one_s_own_are_told():
    arcs, title = drawn(Network.from_module(Fork(), (8, 8, 3)))
    assert arcs == []
    assert "Conv.1 and Conv.2 are concatenated" in title
    assert "branches that lie side by side are drawn one after another" in title
    net = Network.from_module(Fork(), (8, 8, 3))
    assert network_connections(net).strided == ()  # a pooling lies before its sites 1 and 2
    assert "reads all" not in title


def test_a_recorded_network_is_drawn_as_the_network(tmp_path):
    for net in (Network.from_module(Residual(), (8, 8, 3)), tiny_densenet(), tiny_mbconv()):
        record = json.loads(json.dumps(record_network(net, net.channels, 10)))
        read = read_network(record, {})
        assert drawn(read) == drawn(net)
        assert read.site_names == net.site_names
        assert read.macs(net.channels) == net.macs(net.channels)
