"""Figures: what they show, and that it can be read."""

import dataclasses
import itertools
import json
import xml.etree.ElementTree as ElementTree

import flax.linen as nn
import numpy as np
import pytest
from matplotlib.text import Text

from furs_jax.gates import fit_width, gate, match_streams
from furs_jax.networks import NETWORKS, Network, get_network
from furs_jax.networks.recorded import read_network, record_network
from furs_jax.networks.resources import Layer
from furs_jax.report import compare_furs, draw_accuracy, draw_channels, draw_furs, draw_network
from furs_jax.report.diagram import network_arcs, network_columns, network_connections
from furs_jax.report.figures import place_labels
from furs_jax.report.run_record import read_run
from furs_jax.report.style import NARROWER, NEUTRAL, WIDER, new_figure, short_name
from tests.conftest import tiny_densenet, tiny_mbconv
from tests.fake_runs import RELEASED, fake_run, fake_training, rewrite
from tests.own_network import Fork


def overlaps(figure, texts=None) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, and texts that leave the figure."""
    figure.draw_without_rendering()
    texts = [t for t in texts or figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    # Of the text alone: an annotation's own extent has its arrow in it.
    boxes = {t: Text.get_window_extent(t) for t in texts}
    found = [
        (a.get_text(), b.get_text())
        for a, b in itertools.combinations(texts, 2)
        if boxes[a].padded(-1).overlaps(boxes[b].padded(-1))
    ]
    page = figure.bbox.padded(1)
    outside = [t for t in texts if not np.all(page.contains(*p) for p in boxes[t].corners())]
    return found + [(t.get_text(), "the margin") for t in outside]


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


@pytest.mark.parametrize("rounds", [1, 3, 10])
def test_rounds_can_be_read(tmp_path, rounds):
    run = fake_run(tmp_path / "r", rounds=rounds)
    for figure in (draw_furs(run), draw_channels(run)):
        assert overlaps(figure) == []
    widths = [t.get_text() for t in draw_channels(run).axes[0].texts]
    assert widths.count(str(run.rounds[-1]["next_channels"][0])) >= 1
    assert len(widths) == len(run.original) * (rounds + 1)


def test_every_chosen_site_is_marked(tmp_path):
    run = fake_run(tmp_path / "r", rounds=2)
    for ax, record in zip(draw_furs(run).axes, run.rounds, strict=True):
        marked = {c.get_label(): c.lines[0].get_xdata() for c in ax.containers}
        assert list(marked["chosen to widen"]) == record["increased"]
        assert list(marked["chosen to narrow"]) == record["decreased"]


def test_accuracy_limits_hold_every_interval(tmp_path):
    runs = [fake_run(tmp_path / f"{i}", top1=(0.5 + 0.1 * i, 0.9)) for i in range(3)]
    ax = draw_accuracy(runs).axes[0]
    low, high = ax.get_ylim()
    assert low < 49
    assert high > 91
    wild = fake_run(tmp_path / "w", top1=(0.985, 0.015))
    low, high = draw_accuracy([wild]).axes[0].get_ylim()
    assert low >= 0
    assert high <= 100.5


def test_published_points_stand_beside_ours(tmp_path):
    run = fake_run(tmp_path / "r", network="resnet18", data="folder:/x/imagenet", width=0.8)
    figure = draw_accuracy([run])
    labels = {t.get_text() for t in figure.axes[0].texts}
    assert {"SFP", "LCCL", "FPGM, FT", "TAS, KD", "KD", "0.8x"} <= labels
    assert overlaps(figure) == []
    assert "SFP" not in {t.get_text() for t in draw_accuracy([run], published=False).axes[0].texts}


def test_labels_stay_off_each_other():
    rng = np.random.default_rng(0)
    figure = new_figure(4, 4)
    ax = figure.subplots()
    x, y = rng.normal(size=(2, 36))
    ax.plot(x, y, "o")
    place_labels(ax, [(a, b, f"{i}.1.2") for i, (a, b) in enumerate(zip(x, y, strict=True))])
    assert overlaps(figure, ax.texts) == []


def test_two_estimates_are_written_as_png_and_svg(tmp_path):
    names = get_network("resnet8_cifar").site_names
    furs = np.linspace(1e-7, 3e-7, 6)
    paths = compare_furs(tmp_path / "a" / "b.png", furs, furs / 9, furs, None, names, "draws", "F")
    assert [path.name for path in paths] == ["b.png", "b.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    texts = {e.text for e in ElementTree.parse(paths[1]).iter("{http://www.w3.org/2000/svg}text")}
    assert {"1.1.1", "3.1.2", "draws"} <= texts
    before = [path.read_bytes() for path in paths]
    compare_furs(tmp_path / "a" / "b", furs, furs / 9, furs, None, names, "draws", "F")
    assert before == [path.read_bytes() for path in paths]


def test_short_names():
    assert short_name("stage2_block1_conv2") == "2.1.2"
    assert short_name("stage2_block1_expand") == "2.1.expand"
    assert short_name("block1_layer12") == "1.12"
    assert short_name("Conv_0") == "Conv.0"


def recorded(run, vector_change):
    """The run with other next vectors: a list for each round."""
    lines = [{**r, **change} for r, change in zip(run.rounds, vector_change, strict=True)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.path / "rounds.jsonl").write_text(text)
    return read_run(run.path)


def test_sites_that_the_fit_moved_are_not_called_unchanged(tmp_path):
    run = fake_run(tmp_path / "r", rounds=1)
    (record,) = run.rounds
    following = list(record["channels"])
    rest = [s for s in range(12) if s not in record["increased"] + record["decreased"]]
    following[rest[0]] += 1
    following[rest[1]] -= 1
    run = recorded(run, [{"next_channels": following}])
    (ax,) = draw_furs(run).axes
    marked = {c.get_label(): list(c.lines[0].get_xdata()) for c in ax.containers}
    assert marked == {
        "chosen to widen": record["increased"],
        "chosen to narrow": record["decreased"],
        "wider by the fit to the budget": rest[:1],
        "narrower by the fit to the budget": rest[1:2],
        "unchanged": rest[2:],
    }


def test_a_round_that_was_given_up_moves_no_site(tmp_path):
    """With search.patience the next network is the best round's, changed by that one's FURs."""
    run = fake_run(tmp_path / "r", rounds=2)
    run = recorded(run, [{}, {"next_parent": 0}])
    ax = draw_furs(run).axes[1]
    assert ax.get_title("left") == "round 2, then back to 1"
    assert [c.get_label() for c in ax.containers] == ["not used: the search went back"]


def test_the_searched_column_is_named_where_it_is_not_the_last(tmp_path):
    run = fake_run(tmp_path / "r", rounds=3, trained=0)
    assert draw_channels(run).axes[0].get_xlabel() == "after round"
    run = rewrite(run, "config.json", lambda c: c["config"]["search"].update(select="best"))
    assert draw_channels(run).axes[0].get_xlabel() == "after round; searched: after 2"


def test_points_lie_at_their_macs(tmp_path):
    """And are told apart where a run's networks have the same."""
    run = fake_run(tmp_path / "r", start=[9, 7] * 6)
    figure = draw_accuracy([run])
    figure.draw_without_rendering()
    (ax,) = figure.axes
    drawn = {}
    for container in ax.containers:
        line = container.lines[0]
        pixels = line.get_transform().transform(line.get_xydata())
        drawn[container.get_label()] = ax.transData.inverted().transform(pixels)[:, 0]
    macs = [run.result[name]["macs"] / 1e6 for name in ("original", "start", "searched")]
    assert list(drawn) == ["original", "start", "Network Adjustment"]
    assert np.concatenate(list(drawn.values())) == pytest.approx(macs, rel=1e-9)
    lines = [container.lines[0] for container in ax.containers]
    sizes = [line.get_markersize() for line in lines]
    assert sizes == sorted(sizes, reverse=True)  # so that none hides another
    assert [line.get_zorder() for line in lines] == sorted(line.get_zorder() for line in lines)


def test_a_trained_network_has_a_marker_of_its_own(tmp_path):
    runs = [fake_run(tmp_path / "r"), fake_training(tmp_path / "t")]
    (ax,) = draw_accuracy(runs).axes
    markers = [container.lines[0].get_marker() for container in ax.containers]
    assert len(set(markers)) == len(markers) == 3


def test_one_seed_has_no_whisker(tmp_path):
    ax = draw_accuracy([fake_run(tmp_path / "r", trained=4)]).axes[0]
    whiskers = {c.get_label(): c.lines[2][0].get_segments() for c in ax.containers}
    assert np.shape(whiskers["original"]) == (1, 2, 2)
    assert np.size(whiskers["Network Adjustment"]) == 0


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
