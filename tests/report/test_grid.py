"""Reports of a search in which blocks moved: every site that there has been, in its place."""

import dataclasses
import itertools
import json
import re

import pytest

from furs_jax.errors import ConfigError
from furs_jax.networks.depths import sites_at
from furs_jax.report.__main__ import _network_figure
from furs_jax.report.captions import short_names
from furs_jax.report.changes import CHANGES, site_changes
from furs_jax.report.figures import draw_channels, draw_furs
from furs_jax.report.page import Moment, page
from furs_jax.report.run_checks import check_run
from furs_jax.report.run_record import read_run
from furs_jax.report.tensorboard import points
from tests.fake_runs import fake_run
from tests.report.test_page import BOTH, NOW, parsed

DEPTHS = ([2, 2, 2], [3, 2, 1], [3, 2, 1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of a ResNet-14 whose third stage gave a block to the first."""
    folder = tmp_path_factory.mktemp("runs") / "r"
    fake_run(folder)
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    first, second = lines
    first["next_channels"] = [8, 8, 9, 9, 7, 6, *first["next_channels"][4:10]]
    second["channels"] = first["next_channels"]
    second["next_channels"] = [c + 1 for c in second["channels"]]
    first |= {"increased": [4, 2], "decreased": [0, 11]}
    for line, (own, following) in zip(lines, itertools.pairwise(DEPTHS), strict=True):
        line |= {"depths": own, "next_depths": following, "deeper": None, "shallower": None}
    first |= {"deeper": 0, "shallower": 2}
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    result = json.loads((folder / "result.json").read_text())
    result["original"]["depths"] = DEPTHS[0]
    result["searched"] |= {"channels": second["next_channels"], "depths": DEPTHS[-1]}
    (folder / "result.json").write_text(json.dumps(result))
    return read_run(folder)


def test_sites_keep_their_names_and_new_ones_follow(run):
    names = run.site_names()
    assert run.every_site == sites_at(names, [3, 2, 2])
    assert sites_at(names, [2, 2, 2]) == names
    assert sites_at(["stage1_block1_project", "stage2_block1_expand"], [1, 2]) == [
        "stage1_block1_project", "stage2_block1_expand", "stage2_block2_expand",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no sites of blocks"):
        sites_at(["stage1_conv1"], [1])
    first, second = run.grid
    widths = dict(zip(run.every_site, first["channels"], strict=True))
    assert [widths.pop(name) for name in names] == run.rounds[0]["channels"]
    assert list(widths.values()) == [0, 0]
    gone = [run.every_site.index(name) for name in names[-2:]]
    assert [second["channels"][site] for site in gone] == [0, 0]
    changes = dict(zip(CHANGES, site_changes(first), strict=True))
    assert changes["gone with its block"] == gone
    assert [run.every_site[s] for s in changes["chosen to widen"]] == [names[4], names[2]]
    assert [run.every_site[s] for s in changes["chosen to narrow"]] == [names[0]]
    assert not set(site_changes(second)[-1])


def test_the_page_shows_blocks(run):
    found, html = parsed(run), page(run, Moment(NOW, False))
    assert found.cells[BOTH][0][:3] == ["network", "blocks", "MACs"]
    assert [row[1] for row in found.cells[BOTH][1:3]] == ["2, 2, 2", "3, 2, 1"]
    assert "blocks 3, 2, 1" in found.texts[BOTH]
    widths = {row[0]: row[1:] for row in found.cells["Widths over the rounds"][1:]}
    assert list(widths) == short_names(run.every_site)
    assert widths["1.3.1"] == ["—", "7", "8"]
    assert widths["3.2.2"] == [str(run.rounds[0]["channels"][-1]), "—", "—"]
    dots = re.findall(r"<title>([^<]*): \S+ ± \S+; (\d+) channels, then (\d+)</title>", html)
    assert len(dots) == sum(len(line["channels"]) for line in run.rounds)
    assert "Not drawn: the searched network has other blocks than the original" in html


def test_figures_and_events_know_the_sites(run):
    with pytest.raises(ConfigError, match="has other blocks than the original"):
        _network_figure(run, None)
    names = short_names(run.every_site)
    labels = [label.get_text() for label in draw_furs(run).axes[0].get_xticklabels()]
    assert labels == names
    shown = {text.get_text() for text in draw_channels(run).axes[0].texts}
    assert "0" not in shown
    assert "7" in shown
    tags = {(point.tag, point.step): point.value for point in points(run)}
    assert tags["channels/1.3.1", 2] == run.rounds[1]["channels"][4]
    assert tags["channels/1.3.1", 3] == run.rounds[1]["next_channels"][4]
    assert ("channels/3.2.1", 1) in tags
    assert ("channels/3.2.1", 2) not in tags


def test_depths_that_no_run_writes_are_damage(run):
    for depths in ([3, 2], [3, 2, 10**6], [3, 2, 0], "321", [[3], 2, 1]):
        result = json.loads((run.path / "result.json").read_text())
        result["searched"]["depths"] = depths
        with pytest.raises((ValueError, TypeError)):
            check_run(dataclasses.replace(run, result=result))
