"""Figures of rounds and of accuracies: what they show, and that it can be read."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from furs_jax.networks import get_network
from furs_jax.report import compare_furs, draw_accuracy, draw_channels, draw_furs
from furs_jax.report.captions import short_name
from furs_jax.report.labels import place_labels
from furs_jax.report.run_record import read_run
from furs_jax.report.style import new_figure
from tests.fake_runs import fake_run, fake_training, rewrite
from tests.report.texts import overlaps


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
