"""What a run's files tell, finished or not."""

import json

import pytest

from furs_jax.errors import WorkdirError
from furs_jax.networks import get_network
from furs_jax.report import network_section
from furs_jax.report.__main__ import main
from furs_jax.report.run_record import read_run
from furs_jax.report.table4 import comparison
from tests.fake_runs import fake_run, fake_training, rewrite


def test_an_unfinished_run_tells_what_it_has(tmp_path):
    begun = fake_run(tmp_path / "a", rounds=1, trained=0)
    assert begun.progress == "unfinished: 1 of 2 rounds"
    row = comparison([begun]).rows[1]
    assert row.top1 is None
    assert row.macs_m * 1e6 == begun.rounds[-1]["next_macs"]
    late = fake_run(tmp_path / "b", trained=4)
    original, searched = comparison([late]).rows
    assert original.top1.half_width > 0
    assert (searched.top1.half_width, searched.source) == (
        None,
        "b, unfinished: 4 of 6 trainings, 1 seed",
    )
    assert comparison([fake_run(tmp_path / "c", rounds=0, trained=0)]).rows == ()


def test_a_run_from_a_given_vector_is_not_called_original(tmp_path):
    run = fake_run(tmp_path / "r", trained=0, start=[9, 7] * 6)
    assert run.start == [9, 7] * 6
    assert run.original == list(run.network.channels) != run.start
    original, start, searched = comparison([run]).rows
    net = get_network("resnet14_cifar", 0.5, 10, image_shape=(8, 8, 1))
    assert original.macs_m * 1e6 == net.macs(net.channels)
    assert start.macs_m * 1e6 == net.macs([9, 7] * 6)
    assert searched.params_m is None
    assert run.progress == "unfinished: 0 of 9 trainings"
    main([str(run.path)])


def test_a_given_vector_that_is_the_original_s_has_no_start(tmp_path):
    net = get_network("resnet14_cifar", 0.5)
    run = fake_run(tmp_path / "r", trained=0, start=net.channels)
    assert run.progress == "unfinished: 0 of 6 trainings"
    assert [row.method for row in comparison([run]).rows] == ["original", "Network Adjustment"]


def test_a_training_that_has_not_ended_is_unfinished(tmp_path):
    run = fake_training(tmp_path / "t", ended=False)
    (row,) = comparison([run]).rows
    assert (row.method, row.top1) == ("trained", None)
    assert run.progress == "unfinished: 0 of 1 trainings"


def test_a_benchmark_s_folder_is_no_run(tmp_path):
    run = fake_run(tmp_path / "r")
    with pytest.raises(WorkdirError, match=r"a benchmark's trainings \(truth\).*result.json"):
        rewrite(run, "config.json", lambda content: content["config"].update(mode="truth"))


def test_an_unfinished_run_tells_the_vector_that_its_options_select(tmp_path):
    run = fake_run(tmp_path / "r", rounds=3, trained=4)
    assert run.channels == run.rounds[-1]["next_channels"]
    run = rewrite(run, "config.json", lambda c: c["config"]["search"].update(select="best"))
    assert run.channels == run.rounds[-1]["channels"]
    searched = comparison([run]).rows[-1]
    assert searched.macs_m * 1e6 == run.rounds[-1]["macs"]
    assert searched.params_m * 1e6 == run.rounds[-1]["params"]


def test_finals_after_few_rounds_are_counted(tmp_path):
    run = fake_run(tmp_path / "r", rounds=2, trained=4)
    run = rewrite(run, "config.json", lambda c: c["config"]["search"].update(rounds=10))
    assert run.progress == "unfinished: 4 of 6 trainings"  # sites were equal, it stopped early


def test_a_run_of_an_earlier_version_from_given_widths_knows_no_original(tmp_path):
    run = fake_run(tmp_path / "r", trained=0, start=[9, 7] * 6)
    run = rewrite(run, "config.json", lambda content: content.pop("network"))
    assert run.original is None
    assert comparison([run]).rows[0].macs_m is None


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda c: c["config"].update(network=5)),
        ("config.json", lambda c: c["config"].pop("search")),
        ("config.json", lambda c: c.update(network=[])),
        ("config.json", lambda c: c["network"]["layers"].pop(1)),
        ("config.json", lambda c: c["network"]["layers"][1].update(height=0)),
        ("config.json", lambda c: c["network"]["layers"][1].update(code="x")),
        ("config.json", lambda c: c["network"]["original"]["channels"].pop()),
        ("config.json", lambda c: c["network"]["connections"]["reads"].append([99])),
        ("result.json", lambda c: c["searched"]["channels"].pop()),
        ("result.json", lambda c: c["searched"].update(channels=["1"] * 12)),
        ("result.json", lambda c: c["original"].update(macs=None)),
        ("result.json", lambda c: c["original"]["seeds"][0].update(top1="x")),
        ("result.json", lambda c: c["searched"].update(top1=[1])),
    ],
)
def test_a_record_that_cannot_be_is_one_line(tmp_path, file, change):
    run = fake_run(tmp_path / "r")
    with pytest.raises(WorkdirError, match="damaged"):
        rewrite(run, file, change)


@pytest.mark.parametrize(
    "change",
    [
        {"furs": None},
        {"furs": [1.0]},
        {"furs_stderr": [1.0]},
        {"increased": [12]},
        {"next_channels": [8] * 11},
        {"channels": [0] * 12},
        {"round": 7},
        {"next_parent": 9},
        {"macs": "many"},
    ],
)
def test_a_round_that_cannot_be_is_one_line(tmp_path, change):
    run = fake_run(tmp_path / "r")
    lines = [json.dumps({**record, **change}) + "\n" for record in run.rounds]
    (run.path / "rounds.jsonl").write_text("".join(lines))
    with pytest.raises(WorkdirError, match="rounds.jsonl.* line 1"):
        read_run(run.path)


def test_what_is_found_is_drawn_beside_what_the_search_began_with(tmp_path, monkeypatch):
    start = [9, 7] * 6
    run = fake_run(tmp_path / "r", start=start)
    assert run.before == start != run.original
    training = fake_training(tmp_path / "t")
    assert training.before == training.original
    drawn, columns = [], network_section.network_columns

    def recorded(net, *vectors):
        drawn.append(vectors)
        return columns(net, *vectors)

    monkeypatch.setattr(network_section, "network_columns", recorded)
    assert network_section.network_blocks(run)
    assert drawn[0][:2] == (start, run.channels)
